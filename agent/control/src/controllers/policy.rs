//! `POLICY`, `POLICY_BLOCKS` and `POLICY_L4`: decisions of the engine as rows of the tables.

use agent_policy::{Direction, L4Prefix, Outcome, Row as Decision, RowKey, Staged, Verdict};
use dataplane_abi::Be16;
use dataplane_abi::policy as abi;
use dataplane_abi::policy::{BlockKey, L4Key, PolicyEntry, PolicyFlags, PolicyKey, PolicyVerdict};
use ipnet::IpNet;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::row_hash;
use crate::ports::Row;

/// A row of `POLICY_BLOCKS`: number of the blocks, and the block.
pub(crate) type BlockRow = (u32, IpNet);

/// A row of `POLICY_L4`: number of the set, and the prefix.
pub(crate) type L4Row = (u32, L4Prefix);

/// Key bytes.
pub(crate) fn key(key: &RowKey) -> PolicyKey {
    let direction = match key.direction {
        Direction::Ingress => abi::Direction::Ingress,
        Direction::Egress => abi::Direction::Egress,
    };
    PolicyKey::new(key.policy, direction, key.identity)
}

/// Value bytes.
pub(crate) fn entry(decision: &Decision) -> PolicyEntry {
    match decision {
        Decision::All(all) => PolicyEntry::all(verdict(all)),
        Decision::Set(set) => PolicyEntry::by_l4(*set),
        Decision::Blocks { set, blocks } => PolicyEntry::by_blocks(*set, *blocks),
    }
}

/// Key bytes.
pub(crate) fn block_key((blocks, block): &BlockRow) -> BlockKey {
    BlockKey::prefix(*blocks, block.addr(), block.prefix_len())
}

/// Key bytes.
pub(crate) fn l4_key((set, prefix): &L4Row) -> L4Key {
    match prefix.proto {
        None => L4Key::any(*set),
        Some(proto) => L4Key::ports(*set, proto, prefix.port, prefix.bits),
    }
}

/// Value bytes.
pub(crate) fn verdict(verdict: &Verdict) -> PolicyVerdict {
    let flags = match verdict.outcome {
        Outcome::Allow => PolicyFlags::ALLOW,
        Outcome::Deny => PolicyFlags::DENY,
        Outcome::NoRule => PolicyFlags::empty(),
        Outcome::Redirect => PolicyFlags::REDIRECT,
    };
    let staged = match verdict.staged {
        Staged::Nothing => abi::Staged::Nothing,
        Staged::WouldAllow => abi::Staged::WouldAllow,
        Staged::WouldDeny => abi::Staged::WouldDeny,
    };
    PolicyVerdict {
        flags,
        staged: staged as u8,
        proxy_port: Be16::ZERO,
        cookie: verdict.cookie,
        staged_cookie: verdict.staged_cookie,
    }
}

/// A row of `POLICY` that was read back; `None` if this agent would not have written such bytes.
pub(crate) fn parse(row: &Row) -> Option<(RowKey, Decision)> {
    let found = PolicyKey::read_from_bytes(&row.key).ok()?;
    let direction = match abi::Direction::from_number(found.direction)? {
        abi::Direction::Ingress => Direction::Ingress,
        abi::Direction::Egress => Direction::Egress,
    };
    let parsed = RowKey { policy: found.policy, direction, identity: found.identity };
    let decision = parse_entry(row)?;
    (key(&parsed) == found).then_some((parsed, decision))
}

fn parse_entry(row: &Row) -> Option<Decision> {
    let value = PolicyEntry::read_from_bytes(&row.value).ok()?;
    let decision = match (value.l4, value.blocks()) {
        (0, _) => Decision::All(parse_verdict(&value.verdict)?),
        (set, 0) => Decision::Set(set),
        (set, blocks) => Decision::Blocks { set, blocks },
    };
    (entry(&decision) == value).then_some(decision)
}

/// A row of `POLICY_BLOCKS` that was read back; `None` if this agent would not have written such bytes.
pub(crate) fn parse_block(row: &Row) -> Option<(BlockRow, Decision)> {
    let found = BlockKey::read_from_bytes(&row.key).ok()?;
    let (address, length) = found.to_prefix()?;
    let parsed = (found.blocks, IpNet::new(address, length).ok()?);
    let decision = parse_entry(row)?;
    let is_ours = block_key(&parsed) == found && !matches!(decision, Decision::Blocks { .. });
    is_ours.then_some((parsed, decision))
}

/// A row of `POLICY_L4` that was read back; `None` if this agent would not have written such bytes.
pub(crate) fn parse_l4(row: &Row) -> Option<(L4Row, Verdict)> {
    let found = L4Key::read_from_bytes(&row.key).ok()?;
    let prefix = if found.prefixlen == L4Key::ANY_BITS {
        L4Prefix::ANY
    } else {
        let bits = u8::try_from(found.prefixlen.checked_sub(L4Key::PROTO_BITS)?).ok()?;
        L4Prefix { proto: Some(found.proto), bits, port: found.port.get() }
    };
    let parsed = (found.set, prefix);
    let value = PolicyVerdict::read_from_bytes(&row.value).ok()?;
    let decision = parse_verdict(&value)?;
    (l4_key(&parsed) == found && verdict(&decision) == value).then_some((parsed, decision))
}

fn parse_verdict(value: &PolicyVerdict) -> Option<Verdict> {
    let outcome = match value.flags {
        PolicyFlags::ALLOW => Outcome::Allow,
        PolicyFlags::DENY => Outcome::Deny,
        PolicyFlags::REDIRECT => Outcome::Redirect,
        flags if flags.is_empty() => Outcome::NoRule,
        _ => return None,
    };
    let staged = match abi::Staged::from_number(value.staged)? {
        abi::Staged::Nothing => Staged::Nothing,
        abi::Staged::WouldAllow => Staged::WouldAllow,
        abi::Staged::WouldDeny => Staged::WouldDeny,
    };
    Some(Verdict { outcome, cookie: value.cookie, staged, staged_cookie: value.staged_cookie })
}

/// For the digest of the tables.
pub(crate) fn hash(row: &RowKey, decision: &Decision) -> u64 {
    row_hash(b'P', key(row).as_bytes(), entry(decision).as_bytes())
}

/// For the digest of the tables.
pub(crate) fn block_hash(row: &BlockRow, decision: &Decision) -> u64 {
    row_hash(b'B', block_key(row).as_bytes(), entry(decision).as_bytes())
}

/// For the digest of the tables.
pub(crate) fn l4_hash(row: &L4Row, decision: &Verdict) -> u64 {
    row_hash(b'4', l4_key(row).as_bytes(), verdict(decision).as_bytes())
}

#[cfg(test)]
mod tests {
    use dataplane_abi::Identity;

    use super::*;

    #[test]
    fn rows_come_back_as_they_were_written() {
        let all = [Outcome::Allow, Outcome::Deny, Outcome::NoRule, Outcome::Redirect];
        let staged = [Staged::Nothing, Staged::WouldAllow, Staged::WouldDeny];
        for (outcome, staged) in all.into_iter().flat_map(|o| staged.map(|s| (o, s))) {
            let decided = Verdict { outcome, cookie: 7, staged, staged_cookie: 9 };
            for direction in Direction::BOTH {
                let of = RowKey { policy: 3, direction, identity: Identity(700) };
                for decision in
                    [Decision::All(decided), Decision::Set(12), Decision::Blocks { set: 12, blocks: 13 }]
                {
                    let row = Row {
                        key: key(&of).as_bytes().to_vec(),
                        value: entry(&decision).as_bytes().to_vec(),
                    };
                    assert_eq!(parse(&row), Some((of, decision)));
                }
            }
            for (block, decision) in
                [("10.1.0.0/16", Decision::All(decided)), ("fd00::7/128", Decision::Set(12))]
            {
                let of = (5, block.parse().unwrap());
                let row = Row {
                    key: block_key(&of).as_bytes().to_vec(),
                    value: entry(&decision).as_bytes().to_vec(),
                };
                assert_eq!(parse_block(&row), Some((of, decision)));
            }
            for prefix in [
                L4Prefix::ANY,
                L4Prefix { proto: Some(6), bits: 0, port: 0 },
                L4Prefix { proto: Some(6), bits: 4, port: 0x3000 },
                L4Prefix { proto: Some(17), bits: 16, port: 53 },
            ] {
                let row = Row {
                    key: l4_key(&(5, prefix)).as_bytes().to_vec(),
                    value: verdict(&decided).as_bytes().to_vec(),
                };
                assert_eq!(parse_l4(&row), Some(((5, prefix), decided)));
            }
        }
    }

    #[test]
    fn foreign_bytes_are_no_rows() {
        let of = RowKey { policy: 3, direction: Direction::Egress, identity: Identity(700) };
        let mut entry = entry(&Decision::Set(12));
        entry.verdict.staged_cookie = 1;
        let row = Row { key: key(&of).as_bytes().to_vec(), value: entry.as_bytes().to_vec() };
        assert_eq!(parse(&row), None, "a set and a verdict");
        let row = Row { key: vec![1, 2, 3], value: vec![] };
        assert_eq!((parse(&row), parse_block(&row), parse_l4(&row)), (None, None, None));
        let value = super::entry(&Decision::Blocks { set: 1, blocks: 2 }).as_bytes().to_vec();
        let key = block_key(&(3, "10.0.0.0/8".parse().unwrap())).as_bytes().to_vec();
        assert_eq!(parse_block(&Row { key, value }), None, "a block with blocks");
    }
}
