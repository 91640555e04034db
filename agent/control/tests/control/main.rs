//! The agent against ports in memory: what users, runtimes and operators rely on.

mod cni;
mod conntrack;
mod crash;
mod journey;
mod nodes;
mod order;
mod scale;
mod world;
