//! After a failure: which part of the way is missing, so that the reason names the feature and not only the symptom.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use crate::exec::{self, Place};
use crate::workloads::ServiceFacts;

const LIMIT: Duration = Duration::from_secs(20);

/// Why a service was not reached: no name, no address, no backend, or an address that nothing translates.
pub async fn service(
    pods: &Api<Pod>,
    from: &Place,
    name: &str,
    service: &ServiceFacts,
    unresolved: Option<&String>,
    direct: &[String],
) -> String {
    if service.addresses.is_empty() {
        return format!("service {name} was given no cluster address");
    }
    if let Some(complaint) = unresolved {
        return format!("services are not implemented: the name {name} does not resolve ({complaint})");
    }
    match exec::run(pods, from, direct, LIMIT).await {
        Ok(output) if output.code == 0 => format!(
            "services are not implemented: the pod behind {name} answers at its own address, the service's is not translated"
        ),
        Ok(output) => format!(
            "the pod behind {name} does not answer at its own address either ({})",
            output.complaint()
        ),
        Err(error) => format!("the pod behind {name} could not be tried directly ({error})"),
    }
}

/// Why an outside name was not reached: it does not resolve, nobody reaches it, or only pods do not.
///
/// `node` is a place in the network of the sender's own node, where there is one.
pub async fn world(
    pods: &Api<Pod>,
    from: &Place,
    node: Option<&Place>,
    name: &str,
    command: &[String],
) -> Option<String> {
    let look_up = ["nslookup".to_owned(), name.to_owned()];
    match exec::run(pods, from, &look_up, LIMIT).await {
        Ok(output) if output.code == 0 => {}
        Ok(output) => {
            return Some(format!("the name {name} does not resolve in the pod ({})", output.complaint()));
        }
        Err(_) => return None,
    }
    match exec::run(pods, node?, command, LIMIT).await {
        Ok(output) if output.code == 0 => Some(format!("the node reaches {name}, its pods do not")),
        Ok(output) => Some(format!("the node does not reach {name} either ({})", output.complaint())),
        Err(_) => None,
    }
}
