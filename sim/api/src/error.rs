//! Failures as the Kubernetes API reports them: `metav1.Status`.

use serde_json::{Value, json};

use crate::resource::Gr;

/// A failed call. Converts to a `metav1.Status` object of kind `Failure`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// `metav1.StatusReason`, for example `NotFound`.
    pub reason: &'static str,
    /// What the user reads.
    pub message: String,
    /// `metav1.StatusDetails`, if there is something to add.
    pub details: Option<Box<Value>>,
    /// Seconds after which the call may be repeated (`Retry-After`).
    pub retry_after_s: Option<u32>,
}

/// One reason why an object is not valid (`metav1.StatusCause`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Path of the field, for example `spec.ports[0].port`.
    pub field: String,
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueNotSupported`, `FieldValueDuplicate`.
    pub reason: &'static str,
    /// What is wrong, in the words of the API server (`Required value`, `Invalid value: "x": …`).
    pub message: String,
}

impl Cause {
    /// A field that must be set.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message =
            if detail.is_empty() { "Required value".into() } else { format!("Required value: {detail}") };
        Self { field: field.into(), reason: "FieldValueRequired", message }
    }

    /// A field whose value is not allowed.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self {
            field: field.into(),
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {value}: {detail}"),
        }
    }

    /// A field whose value must not be changed.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { field: field.into(), reason: "FieldValueForbidden", message: format!("Forbidden: {detail}") }
    }
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, retry_after_s: None }
    }

    fn of(mut self, resource: &Gr, name: &str) -> Self {
        self.details =
            Some(Box::new(json!({"name": name, "group": resource.group, "kind": resource.resource})));
        self
    }

    /// 404: there is no such object.
    pub fn not_found(resource: &Gr, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} \"{name}\" not found")).of(resource, name)
    }

    /// 404: there is no such path.
    pub fn no_such_path() -> Self {
        let mut e = Self::new(404, "NotFound", "the server could not find the requested resource");
        e.details = Some(Box::new(json!({})));
        e
    }

    /// 409: an object of this name exists.
    pub fn already_exists(resource: &Gr, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{resource} \"{name}\" already exists")).of(resource, name)
    }

    /// 409: the object has changed since it was read, or the call does not fit its state.
    pub fn conflict(resource: &Gr, name: &str, why: &str) -> Self {
        Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}"))
            .of(resource, name)
    }

    /// 422: the object is not valid.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let list: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let text = match list.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let kind_text = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut e = Self::new(422, "Invalid", format!("{kind_text} \"{name}\" is invalid: {text}"));
        let causes: Vec<Value> = causes
            .iter()
            .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}))
            .collect();
        e.details = Some(Box::new(json!({"name": name, "group": group, "kind": kind, "causes": causes})));
        e
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 410: the resource version is too old; list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 403: the call is not allowed in this state.
    pub fn forbidden(resource: &Gr, name: &str, why: &str) -> Self {
        Self::new(403, "Forbidden", format!("{resource} \"{name}\" is forbidden: {why}")).of(resource, name)
    }

    /// 405: this resource does not know this verb.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 406: none of the accepted media types is available.
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }

    /// 415: the body's media type is not understood.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 429: called too often, or an eviction would break a budget.
    pub fn too_many_requests(message: impl Into<String>, retry_after_s: u32) -> Self {
        let mut e = Self::new(429, "TooManyRequests", message);
        e.retry_after_s = Some(retry_after_s);
        e
    }

    /// 500: something in the server failed.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {}", message.into()))
    }

    /// 503: not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// A failure whose code is given, as a fault would inject it.
    pub fn with_code(code: u16, message: impl Into<String>) -> Self {
        match code {
            429 => Self::too_many_requests(message, 1),
            503 => Self::unavailable(message),
            410 => Self::expired(message),
            500 => Self::internal(message),
            _ => Self::new(code, "Unknown", message),
        }
    }

    /// Replaces the details, for callers that know more than the constructor.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// True for "no such object" (and not for "no such path").
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// True if the object exists already.
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    /// True for a lost race: read again and repeat.
    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    /// The `metav1.Status` object.
    pub fn to_status(&self) -> Value {
        let mut s = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason,
        });
        let mut details = self.details.as_deref().cloned();
        if let Some(seconds) = self.retry_after_s {
            details.get_or_insert_with(|| json!({}))["retryAfterSeconds"] = json!(seconds);
        }
        if let Some(details) = details {
            s["details"] = details;
        }
        s["code"] = json!(self.code);
        s
    }
}
