//! What the API server does to built-in objects between the request and the store: defaults, fields that only it may
//! set, checks.

mod defaults;
mod prepare;
pub(crate) mod services;
mod validate;

pub(crate) use defaults::defaults;
pub(crate) use prepare::{prepare_create, prepare_update};
pub(crate) use validate::{validate, validate_update};
