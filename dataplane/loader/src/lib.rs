//! dataplane-loader.
