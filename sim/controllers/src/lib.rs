//! sim-controllers.
