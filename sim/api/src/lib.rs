//! sim-api.
