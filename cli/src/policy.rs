//! Identities and policies as text for people.

use agent_api::policy::{Explanation, Identity, Party, Policy, Side};

use crate::show::identity;
use crate::table::{Facts, Table};

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
    let mut table = Table::new(&["KIND", "NAMESPACE", "NAME", "ENDPOINTS", "FINDINGS"]);
    for policy in policies {
        table.row([
            policy.kind.clone(),
            policy.namespace.clone(),
            policy.name.clone(),
            list(&policy.endpoints, ","),
            list(&policy.findings, "; "),
        ]);
    }
    table.to_string()
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

fn side(side: Option<&Side>) -> String {
    let Some(side) = side else { return "no policy is asked".to_owned() };
    let by = if side.passes { " by " } else { ": " };
    let mut parts = vec![side.outcome.clone()];
    if !side.decided_by.is_empty() {
        parts.extend([by.to_owned(), list(&side.decided_by, ", ")]);
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
        let text = explanation(&Explanation {
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
        });
        assert_eq!(
            text,
            "From:     shop/cart (300: k8s:app=shop/cart)\n\
             To:       shop/db (301: k8s:app=shop/db)\n\
             Egress:   no policy\n\
             Ingress:  nothing allows it: NetworkPolicy/shop/db isolates\n\
             Result:   does not pass\n"
        );
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
            text.contains("CiliumNetworkPolicy  -          p     1,7        toFQDNs selects nothing"),
            "{text}"
        );
        let text =
            identities(&[Identity { id: 300, labels: vec!["k8s:app=a".into()], ..Identity::default() }]);
        assert!(text.contains("300  -     -          k8s:app=a"), "{text}");
    }
}
