//! CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy, sentence by sentence.

mod default_deny;
mod invalid;
mod peers;
mod ports;
mod selectors;
