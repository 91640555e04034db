//! One sentence with what to do, for the failures that operators meet.

use kube::runtime::watcher;

use crate::words::chain;

fn source(problem: &watcher::Error) -> Option<&kube::Error> {
    match problem {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => Some(source),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}

/// Whether the server does not know the kind.
pub(super) fn is_missing(problem: &watcher::Error) -> bool {
    matches!(source(problem), Some(kube::Error::Api(status)) if status.code == 404)
}

/// What to do about a kind that is missing.
pub(super) fn missing(name: &str) -> String {
    format!(
        "the cluster does not know {name}: install the CustomResourceDefinitions with `kubectl apply -f deploy/crds`, or run the agent with --policy off"
    )
}

/// A watch on objects of the kind `name` failed.
pub(super) fn watch(name: &str, problem: &watcher::Error) -> String {
    match source(problem) {
        Some(kube::Error::Api(status)) if status.code == 403 => {
            format!(
                "the API server refuses to list {name} ({}); apply deploy/rbac.yaml or give a kubeconfig with get, list and watch on {name}",
                status.message
            )
        }
        // So it answers for every kind while it starts.
        Some(kube::Error::Api(status)) if matches!(status.code, 429 | 503) => {
            format!("the API server is not ready ({})", status.message)
        }
        Some(problem @ kube::Error::Api(status)) if status.code == 401 => call("", problem),
        Some(
            problem @ (kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_)),
        ) => call("", problem),
        _ => format!("watching {name} failed ({})", chain(problem)),
    }
}

/// A call failed that was to do `what`.
pub(crate) fn call(what: &str, problem: &kube::Error) -> String {
    match problem {
        kube::Error::Api(status) if status.code == 401 => {
            format!(
                "the API server does not accept the credentials ({}); renew the kubeconfig or token",
                status.message
            )
        }
        kube::Error::Api(status) if status.code == 403 => {
            format!("the API server refuses to {what} ({}); apply deploy/rbac.yaml", status.message)
        }
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
            format!("the API server is out of reach ({})", root(problem))
        }
        _ => format!("cannot {what} ({})", chain(problem)),
    }
}

/// What was tried and why it failed, without the layers between.
pub(super) fn brief(problem: &anyhow::Error) -> String {
    let (outer, root) = (problem.to_string(), problem.root_cause().to_string());
    if outer == root { outer } else { format!("{outer}: {root}") }
}

/// The innermost cause: of a connection that fails only this says why.
fn root(problem: &dyn std::error::Error) -> String {
    let mut last = problem;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}
