//! Identities and policies as an agent knows them.

use std::process::ExitCode;

use agent_api::paths;
use agent_api::policy::{Change, Explanation, Identity, Party, Policy, Side, Staged, WhatIf};
use anyhow::{Context as _, Result, anyhow};

use crate::client::Client;
use crate::flags::Output;
use crate::policy::flags::ExplainFlags;
use crate::policy::{self, documents};
use crate::show::identity;
use crate::table::{Facts, Table};

/// `bristle policy list`
pub(crate) fn list_policies(client: &Client, output: Output) -> Result<ExitCode> {
    crate::print(output, &client.get::<Vec<Policy>>(paths::POLICIES)?, |list| policies(list))?;
    Ok(ExitCode::SUCCESS)
}

/// `bristle policy explain` without files.
pub(crate) fn explain(client: &Client, flags: &ExplainFlags, output: Output) -> Result<ExitCode> {
    let (from, to) = (end(&flags.from).context("--from")?, end(&flags.to).context("--to")?);
    let (number, protocol) = port(&flags.port).context("--port")?;
    let path = format!("{}?from={from}&to={to}&port={number}&protocol={protocol}", paths::EXPLAIN);
    if flags.with.is_empty() && flags.without.is_empty() {
        crate::print(output, &client.get::<Explanation>(&path)?, explanation)?;
        return Ok(ExitCode::SUCCESS);
    }
    let with = documents::read(&flags.with)?.into_iter().map(|document| document.object).collect();
    let without = flags.without.iter().map(|text| policy::named(text)).collect::<Result<_>>()?;
    let answer: WhatIf = client.send("POST", &path, &Change { with, without })?;
    crate::print(output, &answer, what_if)?;
    Ok(ExitCode::from(u8::from(answer.changes)))
}

/// Names and addresses have no other characters, and these need no quoting in a query.
fn end(text: &str) -> Result<&str> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-./:".contains(&byte);
    let named = !text.is_empty() && text.bytes().all(fine);
    named
        .then_some(text)
        .ok_or_else(|| anyhow!("an agent is asked by NAMESPACE/NAME, NAME, or an IP address"))
}

fn port(text: &str) -> Result<(u16, String)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let fine = !protocol.is_empty() && protocol.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let number = number.parse().ok().filter(|_| fine);
    let asked = number.map(|number| (number, protocol.to_lowercase()));
    asked.ok_or_else(|| {
        anyhow!("an agent is asked by number, as 80, 80/tcp or 53/udp; for ICMP the type as 8/icmp")
    })
}

fn list<T: ToString>(items: &[T], between: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

/// `bristle identity list`
pub(crate) fn identities(identities: &[Identity]) -> String {
    let mut table = Table::new(&["ID", "NAME", "ENDPOINTS", "LABELS"]);
    for identity in identities {
        table.row([
            identity.id.to_string(),
            identity.name.clone(),
            list(&identity.endpoints, ","),
            list(&identity.labels, ","),
        ]);
    }
    table.to_string()
}

/// `bristle policy list`
pub(crate) fn policies(policies: &[Policy]) -> String {
    let mut table = Table::new(&["KIND", "NAMESPACE", "NAME", "ENDPOINTS", "STAGED", "FINDINGS"]);
    for policy in policies {
        table.row([
            policy.kind.clone(),
            policy.namespace.clone(),
            policy.name.clone(),
            list(&policy.endpoints, ","),
            policy.staged.map(staged).unwrap_or_default(),
            list(&policy.findings, "; "),
        ]);
    }
    table.to_string()
}

fn staged(would: Staged) -> String {
    format!("would deny {}, allow {}", would.would_deny, would.would_allow)
}

/// `bristle policy explain`
pub(crate) fn explanation(explanation: &Explanation) -> String {
    let party = |party: &Party| {
        format!("{} ({}: {})", party.name, identity(party.identity), list(&party.labels, ", "))
    };
    let mut facts = Facts::default();
    facts.fact("From", party(&explanation.from));
    facts.fact("To", party(&explanation.to));
    facts.fact("Egress", side(explanation.egress.as_ref()));
    facts.fact("Ingress", side(explanation.ingress.as_ref()));
    facts.fact("Result", if explanation.passes { "passes" } else { "does not pass" });
    facts.to_string()
}

/// `bristle policy explain --with …`
fn what_if(answer: &WhatIf) -> String {
    let word = |explanation: &Explanation| if explanation.passes { "passes" } else { "does not pass" };
    let end = if answer.changes {
        format!("the answer changes: it {} now, it {} then", word(&answer.now), word(&answer.then))
    } else {
        format!("the answer stays: it {}", word(&answer.now))
    };
    format!("Now\n{}\nThen\n{}\n{end}\n", explanation(&answer.now), explanation(&answer.then))
}

fn side(side: Option<&Side>) -> String {
    let Some(side) = side else { return "no policy is asked".to_owned() };
    let by = if side.passes { " by " } else { ": " };
    let mut parts = vec![side.outcome.clone()];
    if !side.decided_by.is_empty() {
        parts.extend([by.to_owned(), list(&side.decided_by, ", ")]);
    }
    if side.audited && !side.passes {
        parts.push("; passes all the same, it is only audited there".to_owned());
    }
    if !side.staged.is_empty() {
        parts.extend(["; staged policies ".to_owned(), side.staged.clone()]);
        if !side.staged_by.is_empty() {
            parts.extend([": ".to_owned(), list(&side.staged_by, ", ")]);
        }
    }
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_names_who_and_why() {
        let party = |name: &str, identity| Party {
            name: name.into(),
            identity,
            labels: vec![format!("k8s:app={name}")],
        };
        let mut asked = Explanation {
            from: party("shop/cart", 300),
            to: party("shop/db", 301),
            passes: false,
            egress: Some(Side { passes: true, outcome: "no policy".into(), ..Side::default() }),
            ingress: Some(Side {
                judged: true,
                outcome: "nothing allows it".into(),
                decided_by: vec!["NetworkPolicy/shop/db isolates".into()],
                ..Side::default()
            }),
        };
        assert_eq!(
            explanation(&asked),
            "From:     shop/cart (300: k8s:app=shop/cart)\n\
             To:       shop/db (301: k8s:app=shop/db)\n\
             Egress:   no policy\n\
             Ingress:  nothing allows it: NetworkPolicy/shop/db isolates\n\
             Result:   does not pass\n"
        );
        asked.passes = true;
        asked.ingress.as_mut().expect("as above").audited = true;
        let text = explanation(&asked);
        assert!(text.contains("isolates; passes all the same, it is only audited there\n"), "{text}");
    }

    #[test]
    fn lists_have_a_cell_for_everything() {
        let policy = Policy {
            kind: "CiliumNetworkPolicy".into(),
            name: "p".into(),
            endpoints: vec![1, 7],
            findings: vec!["toFQDNs selects nothing".into()],
            ..Policy::default()
        };
        let text = policies(&[policy]);
        assert!(
            text.contains("CiliumNetworkPolicy  -          p     1,7        -       toFQDNs selects nothing"),
            "{text}"
        );
        let staged = Staged { would_allow: 3, would_deny: 12 };
        let text = policies(&[Policy { name: "next".into(), staged: Some(staged), ..Policy::default() }]);
        assert!(text.contains("would deny 12, allow 3"), "{text}");
        let text =
            identities(&[Identity { id: 300, labels: vec!["k8s:app=a".into()], ..Identity::default() }]);
        assert!(text.contains("300  -     -          k8s:app=a"), "{text}");
    }
}
