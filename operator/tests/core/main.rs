//! The operator's mind against a model of the API server: whatever the order, repetitions and failures, the objects
//! end the same, and no set of labels ever has two numbers.

mod collect;
mod enforcement;
mod order;
mod policies;
mod world;
