//! dataplane-native.
