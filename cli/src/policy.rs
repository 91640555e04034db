//! `bristle policy`: questions about policies, answered by an agent, or from files by the engine of the agents.
//!
//! Start reading at [`run`], then `cluster` (what the files say) and `answer` (what follows).

mod answer;
mod cluster;
pub(crate) mod documents;
mod ends;
pub(crate) mod flags;
mod status;
mod validate;

use crate::client::Client;
use crate::flags::Output;
use crate::live;
use agent_api::policy::ObjectRef;
use answer::Answer;
use anyhow::{Context as _, Result, bail, ensure};
use cluster::Cluster;
use documents::{Documents, Key, by_key, is_of_cluster};
use ends::Who;
use flags::{ExplainFlags, PolicyCommand, ValidateFlags};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::process::ExitCode;

/// The answer before and after a change of the objects.
#[derive(Debug, Serialize, Deserialize)]
struct WhatIf {
    /// Whether one is allowed and the other is not.
    changes: bool,
    now: Answer,
    then: Answer,
}

/// Answers, and says by the exit code what scripts want to know.
///
/// # Errors
/// When there is no answer.
pub(crate) fn run(client: &Client, command: &PolicyCommand, output: Output) -> Result<ExitCode> {
    match command {
        PolicyCommand::List => live::list_policies(client, output),
        PolicyCommand::Explain(flags) if flags.files.is_empty() => live::explain(client, flags, output),
        PolicyCommand::Explain(flags) => explain(flags, output),
        PolicyCommand::Validate(flags) => validate(flags, output),
        PolicyCommand::Status(flags) => {
            let status = status::status(&documents::read(&flags.files)?, &flags.policies)?;
            crate::print(output, &status, status::text)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn explain(flags: &ExplainFlags, output: Output) -> Result<ExitCode> {
    let documents = by_key(documents::read(&flags.files)?);
    let now = ask(flags, &documents)?;
    if flags.with.is_empty() && flags.without.is_empty() {
        crate::print(output, &now, Answer::text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut after = documents.clone();
    for text in &flags.without {
        let key = key(text, &documents)?;
        after.remove(&key);
    }
    let with = documents::read(&flags.with)?;
    if let Some(wrong) = validate::validate(&with).into_iter().find(|one| one.refused.is_some()) {
        bail!(
            "{} ({}) would be refused, so that nothing changes: {}; correct it first",
            wrong.object,
            wrong.file,
            wrong.refused.unwrap_or_default()
        );
    }
    after.extend(by_key(with));
    let then = ask(flags, &after)?;
    let what_if = WhatIf { changes: now.allowed != then.allowed, now, then };
    crate::print(output, &what_if, WhatIf::text)?;
    Ok(ExitCode::from(u8::from(what_if.changes)))
}

fn ask(flags: &ExplainFlags, documents: &Documents) -> Result<Answer> {
    let cluster = Cluster::new(documents)?;
    let from = Who::find(&flags.from, &cluster).context("--from")?;
    let to = Who::find(&flags.to, &cluster).context("--to")?;
    let nodes_have_policies = cluster.policies.store().specs().any(|spec| spec.host);
    let may_have_policies = |who: &Who<'_>| match who {
        Who::Pod(_) => true,
        Who::Node(_) => nodes_have_policies,
        _ => false,
    };
    ensure!(
        may_have_policies(&from) || may_have_policies(&to),
        "neither {} nor {} is a pod of the files, or a node while there are policies for nodes: \
         nobody else has policies, so name one",
        flags.from,
        flags.to
    );
    let port = ends::port(&flags.port, &to).context("--port")?;
    let addresses = [&flags.from, &flags.to].into_iter().filter_map(|text| text.parse::<IpAddr>().ok());
    let family = addresses.map(|address| address.is_ipv4()).next();
    let mut answer = answer::answer(&cluster, from, to, port, family);
    let refused = cluster
        .refused
        .iter()
        .map(|(object, problem)| format!("{object} is refused and left out of the answer: {problem}"));
    answer.notes.extend(refused);
    let decides = |object: &str| {
        let halves = [&answer.egress, &answer.ingress];
        halves
            .into_iter()
            .any(|half| half.decided_by.iter().chain(&half.isolated_by).any(|cause| cause.object == object))
    };
    let warnings = cluster.warnings().into_iter().filter(|(object, _)| decides(object));
    let warnings: Vec<String> = warnings.map(|(object, warning)| format!("{object}: {warning}")).collect();
    answer.notes.extend(warnings);
    Ok(answer)
}

/// The object that is meant by `KIND/[NAMESPACE/]NAME`.
pub(crate) fn named(text: &str) -> Result<ObjectRef> {
    let parts: Vec<&str> = text.split('/').collect();
    let (kind, namespace, name) = match parts[..] {
        [kind, name] if is_of_cluster(kind) => (kind, "", name),
        [kind, name] => (kind, "default", name),
        [kind, namespace, name] => (kind, namespace, name),
        _ => bail!("--without {text}: write KIND/NAMESPACE/NAME, or KIND/NAME for objects of the cluster"),
    };
    let [kind, namespace, name] = [kind, namespace, name].map(str::to_owned);
    Ok(ObjectRef { kind, namespace, name })
}

/// The one of the files.
fn key(text: &str, documents: &Documents) -> Result<Key> {
    let ObjectRef { kind, namespace, name } = named(text)?;
    let of_kind = |key: &&Key| key.kind.eq_ignore_ascii_case(&kind);
    let wanted = |key: &&Key| key.name == name && key.namespace == namespace;
    if let Some(found) = documents.keys().filter(of_kind).find(wanted) {
        return Ok(found.clone());
    }
    let there: Vec<String> = documents.keys().filter(of_kind).take(5).map(ToString::to_string).collect();
    if there.is_empty() {
        bail!("--without {text}: there is no {kind} in the files; kinds are written in full");
    }
    bail!("--without {text}: there is no such object in the files; there are {}", there.join(", "))
}

impl WhatIf {
    fn text(&self) -> String {
        let word = |answer: &Answer| if answer.allowed { "allowed" } else { "denied" };
        let end = if self.changes {
            format!("the answer changes: {} now, {} then", word(&self.now), word(&self.then))
        } else {
            format!("the answer stays: {}", word(&self.now))
        };
        format!("now {}\nthen {}\n{end}\n", self.now.text(), self.then.text())
    }
}

fn validate(flags: &ValidateFlags, output: Output) -> Result<ExitCode> {
    let list = validate::validate(&documents::read(&flags.files)?);
    crate::print(output, &list, |list| validate::text(list))?;
    Ok(ExitCode::from(u8::from(list.iter().any(|one| one.refused.is_some()))))
}
