//! The parameters that come by environment variables (spec section 2, "Execution Protocol").

use std::collections::BTreeMap;

use agent_api::cni::{Attachment, CniError, ErrorCode};

/// Longest name of an interface, in bytes.
const MAX_IFNAME_LEN: usize = 15;

/// Keys of `CNI_ARGS` that mean something to us.
const KNOWN_ARGS: [&str; 5] =
    ["IgnoreUnknown", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID", "K8S_POD_INFRA_CONTAINER_ID"];

/// Looks a variable up.
pub(crate) type Lookup<'a> = &'a mut dyn FnMut(&str) -> Option<String>;

/// Parameters of the commands that are about one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) attachment: Attachment,
    /// `CNI_NETNS`, unless empty.
    pub(crate) netns: Option<String>,
    pub(crate) args: BTreeMap<String, String>,
    /// The runtime allows a namespace that is the plugin's own.
    pub(crate) netns_override: bool,
}

/// Which variables a command cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// ADD and CHECK.
    NeedsNetns,
    /// DEL: the namespace may be gone, and what cannot be understood must not keep the runtime from cleaning up.
    Lenient,
}

/// Reads and checks the variables.
///
/// # Errors
/// Code 4, naming every variable that is missing or bad.
pub(crate) fn parameters(get: Lookup<'_>, strictness: Strictness) -> Result<Parameters, CniError> {
    let mut get = |name: &str| get(name).filter(|value| !value.is_empty());
    let container_id = get("CNI_CONTAINERID");
    let ifname = get("CNI_IFNAME");
    let netns = get("CNI_NETNS");
    let needs_netns = strictness == Strictness::NeedsNetns;
    let missing: Vec<_> = [
        ("CNI_CONTAINERID", container_id.is_none()),
        ("CNI_NETNS", netns.is_none() && needs_netns),
        ("CNI_IFNAME", ifname.is_none()),
    ]
    .into_iter()
    .filter_map(|(name, missing)| missing.then_some(name))
    .collect();
    let (Some(container_id), Some(ifname), true) = (container_id, ifname, missing.is_empty()) else {
        let msg = format!(
            "missing environment variables: {}; the container runtime has to set them",
            missing.join(", ")
        );
        return Err(CniError::new(ErrorCode::INVALID_ENVIRONMENT, msg));
    };
    check_container_id(&container_id)?;
    check_ifname(&ifname)?;
    let args = match parse_args(&get("CNI_ARGS").unwrap_or_default()) {
        Err(error) if needs_netns => return Err(error),
        args => args.unwrap_or_default(),
    };
    let netns_override = get("CNI_NETNS_OVERRIDE").is_some_and(|value| is_true(&value));
    Ok(Parameters { attachment: Attachment { container_id, ifname }, netns, args, netns_override })
}

fn invalid(msg: String) -> CniError {
    CniError::new(ErrorCode::INVALID_ENVIRONMENT, msg)
}

/// `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`, for container ids and names of networks.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn check_container_id(id: &str) -> Result<(), CniError> {
    if is_identifier(id) {
        return Ok(());
    }
    Err(invalid(format!(
        "CNI_CONTAINERID {id:?} must begin with a letter or digit, followed by letters, digits, '_', '.' or '-'"
    )))
}

fn check_ifname(name: &str) -> Result<(), CniError> {
    let reason = if name.len() > MAX_IFNAME_LEN {
        "is longer than 15 bytes"
    } else if name == "." || name == ".." {
        "is not a name"
    } else if name.chars().any(|character| character == '/' || character == ':' || character.is_whitespace())
    {
        "contains '/', ':' or white space"
    } else {
        return Ok(());
    };
    Err(invalid(format!("CNI_IFNAME {name:?} {reason}")))
}

fn parse_args(text: &str) -> Result<BTreeMap<String, String>, CniError> {
    let mut args = BTreeMap::new();
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(invalid(format!("CNI_ARGS holds {pair:?}, which is not of the form KEY=VALUE")));
        };
        args.insert(key.to_owned(), value.to_owned());
    }
    let ignore_unknown = args.get("IgnoreUnknown").is_some_and(|value| is_true(value));
    let unknown: Vec<_> = args.keys().map(String::as_str).filter(|key| !KNOWN_ARGS.contains(key)).collect();
    if ignore_unknown || unknown.is_empty() {
        return Ok(args);
    }
    Err(invalid(format!(
        "CNI_ARGS holds unknown keys: {}; remove them or add IgnoreUnknown=1",
        unknown.join(", ")
    )))
}

fn is_true(value: &str) -> bool {
    value == "1" || value.eq_ignore_ascii_case("true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variables: &[(&str, &str)], strictness: Strictness) -> Result<Parameters, CniError> {
        parameters(
            &mut |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
            strictness,
        )
    }

    const GOOD: [(&str, &str); 3] = [("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/n"), ("CNI_IFNAME", "eth0")];

    /// GOOD with one variable set to something else.
    fn with(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
        let mut variables = vec![(name, value)];
        variables.extend(GOOD);
        variables
    }

    #[test]
    fn good_ones_are_taken() {
        let parameters = check(
            &with("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=a;X=y=z;K8S_POD_NAME=b"),
            Strictness::NeedsNetns,
        )
        .unwrap();
        assert_eq!(parameters.attachment, Attachment { container_id: "c1".into(), ifname: "eth0".into() });
        assert_eq!(parameters.netns.as_deref(), Some("/n"));
        assert_eq!((parameters.args["K8S_POD_NAME"].as_str(), parameters.args["X"].as_str()), ("b", "y=z"));
        assert!(!parameters.netns_override);
        assert!(check(&with("CNI_NETNS_OVERRIDE", "TRUE"), Strictness::NeedsNetns).unwrap().netns_override);
        assert_eq!(check(&with("CNI_NETNS", ""), Strictness::Lenient).unwrap().netns, None);
        assert!(check(&with("CNI_ARGS", "nonsense"), Strictness::Lenient).unwrap().args.is_empty());
    }

    #[test]
    fn bad_ones_are_named() {
        let cases: [(&[(&str, &str)], &str); 10] = [
            (&[], "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"),
            (&with("CNI_NETNS", ""), "variables: CNI_NETNS;"),
            (&with("CNI_CONTAINERID", "-c"), "CNI_CONTAINERID \"-c\""),
            (&with("CNI_CONTAINERID", "a/b"), "CNI_CONTAINERID \"a/b\""),
            (&with("CNI_IFNAME", "sixteen-bytes-xx"), "CNI_IFNAME \"sixteen-bytes-xx\" is longer"),
            (&with("CNI_IFNAME", ".."), "CNI_IFNAME \"..\""),
            (&with("CNI_IFNAME", "a:b"), "CNI_IFNAME \"a:b\""),
            (&with("CNI_IFNAME", "a b"), "CNI_IFNAME \"a b\""),
            (&with("CNI_ARGS", "K8S_POD_NAME"), "CNI_ARGS holds \"K8S_POD_NAME\""),
            (&with("CNI_ARGS", "IP=10.0.0.1"), "CNI_ARGS holds unknown keys: IP"),
        ];
        for (variables, part) in cases {
            let error = check(variables, Strictness::NeedsNetns).unwrap_err();
            assert_eq!(error.code, ErrorCode::INVALID_ENVIRONMENT);
            assert!(error.msg.contains(part), "{:?} should contain {part:?}", error.msg);
        }
    }
}
