//! `bristle endpoint config`: what is set for one pod alone.

use agent_api::{Endpoint, EndpointConfig, paths};
use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

use crate::client::Client;
use crate::flags::Output;
use crate::table::Table;

/// Sets what is to be set, and shows what holds.
pub(crate) fn run(client: &Client, id: u16, set: &[String], output: Output) -> Result<()> {
    let path = format!("{}/{id}", paths::ENDPOINTS);
    let endpoint: Endpoint = if set.is_empty() {
        client.get(&path)?
    } else {
        client.send("PATCH", &format!("{path}/config"), &change(set)?)?
    };
    crate::print(output, &endpoint.config, |config| text(*config))
}

/// The request's body. Which keys and values there are the agent says.
fn change(set: &[String]) -> Result<Map<String, Value>> {
    let mut change = Map::new();
    for text in set {
        let (key, value) =
            text.split_once('=').with_context(|| format!("`{text}`: write KEY=VALUE, see --help"))?;
        if change.insert(key.to_owned(), value.into()).is_some() {
            bail!("{key} is there twice");
        }
    }
    Ok(change)
}

fn text(config: EndpointConfig) -> String {
    let mut table = Table::new(&["KEY", "VALUE"]);
    let values = serde_json::to_value(config).unwrap_or_default();
    for (key, value) in values.as_object().into_iter().flatten() {
        table.row([key.clone(), value.as_str().unwrap_or_default().to_owned()]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::{EndpointConfigChange, PolicyAuditMode, PolicyEnforcement};

    fn set(pairs: &[&str]) -> Result<EndpointConfigChange> {
        let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        Ok(serde_json::from_value(Value::Object(change(&pairs)?))?)
    }

    #[test]
    fn pairs_are_what_the_agent_reads() {
        let both = set(&["PolicyEnforcement=never", "PolicyAuditMode=Enabled"]).unwrap();
        assert_eq!(both.policy_enforcement, Some(PolicyEnforcement::Never));
        assert_eq!(both.policy_audit_mode, Some(PolicyAuditMode::Enabled));
        assert_eq!(set(&["PolicyAuditMode=node"]).unwrap().policy_audit_mode, Some(PolicyAuditMode::Node));
        let wrong = ["PolicyEnforcement", "PolicyEnforcement=sometimes", "Debug=Enabled", "PolicyAuditMode="];
        for pair in wrong {
            assert!(set(&[pair]).is_err(), "{pair}");
        }
        assert!(set(&["PolicyAuditMode=node", "PolicyAuditMode=Enabled"]).is_err());
    }

    #[test]
    fn what_holds_is_shown_in_the_words_that_set_it() {
        let config =
            EndpointConfig { policy_enforcement: PolicyEnforcement::Always, ..EndpointConfig::default() };
        let text = text(config);
        assert!(text.contains("PolicyEnforcement  always\n"), "{text}");
        assert!(text.contains("PolicyAuditMode    node\n"), "{text}");
    }
}
