//! Parts of a port rule that only a proxy could enforce.

use crate::attempt::Protocol;
use crate::error::OracleError;
use crate::field::Field;
use crate::objects::cilium::Context;
use crate::objects::cilium::port::{Port, Protocols};
use crate::objects::policy::PortMatch;
use crate::verdict::Direction;

/// Whether a rule has such parts. Which may stand together, and for which ports, is what Cilium's validation says.
pub(super) fn is_there(rule: &Field<'_>, context: Context<'_>, ports: &[Port]) -> Result<bool, OracleError> {
    let rules = rule.at("rules")?;
    let mut kinds = Vec::new();
    for (member, kind) in
        [("http", "http"), ("kafka", "kafka"), ("dns", "dns"), ("l7", "l7"), ("l7proto", "l7")]
    {
        let member = rules.at(member)?;
        if member.is_present() && !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if let [_, second, ..] = kinds[..] {
        return Err(rules.at(second)?.wrong("must not stand beside another kind of rules"));
    }
    let kind = kinds.first().copied();
    if let Some(kind) = kind {
        check(&rules, kind, context, ports)?;
    }
    let (names, listener) = (rule.at("serverNames")?, rule.at("listener")?);
    let terminates = rule.at("terminatingTLS")?.is_present();
    if !names.items()?.is_empty() && kind.is_some() && !terminates {
        return Err(names.wrong("must not stand beside rules without terminatingTLS"));
    }
    if listener.is_present() && kind.is_some() {
        return Err(listener.wrong("must not stand beside rules"));
    }
    if listener.is_present() && context.direction == Direction::Ingress {
        return Err(listener.wrong("must not stand in ingress"));
    }
    Ok(kind.is_some()
        || names.is_present()
        || listener.is_present()
        || terminates
        || rule.at("originatingTLS")?.is_present())
}

fn check(rules: &Field<'_>, kind: &str, context: Context<'_>, ports: &[Port]) -> Result<(), OracleError> {
    let field = rules.at(kind)?;
    if kind == "dns" && context.direction == Direction::Ingress {
        return Err(field.wrong("must not stand in ingress"));
    }
    if context.is_host_policy && (kind != "dns" || context.direction == Direction::Ingress) {
        return Err(field.wrong("must not stand in a host policy"));
    }
    if ports.is_empty() {
        return Err(field.wrong("must not stand without ports"));
    }
    for port in ports {
        let fits = match port.protocol {
            Protocols::One(Protocol::Tcp) => true,
            Protocols::Any | Protocols::One(Protocol::Udp) => kind == "dns",
            Protocols::One(_) | Protocols::Unseen => false,
        };
        if !fits {
            return Err(field.wrong("must not stand with this protocol"));
        }
        match port.number {
            PortMatch::Any => return Err(field.wrong("must not stand with all ports")),
            PortMatch::Range(first, last) if first != last && kind == "dns" => {
                return Err(field.wrong("must not stand with a range of ports"));
            }
            PortMatch::Range(..) | PortMatch::Named(_) => {}
        }
    }
    Ok(())
}
