//! What kinds of random scenarios there are.

/// Something that a profile may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breakage {
    /// The agent dies, at once or after some commands.
    Kill,
    /// The operator dies.
    Operator,
    /// The same as an agent's death, and it finds an older state directory.
    Snapshot,
    /// The agent stands still.
    Stall,
    /// The agent's clock jumps.
    Skew,
    /// The API server or a watch misbehaves.
    Api,
    /// The container runtime misbehaves.
    Cni,
    /// A link loses, delays, repeats, overtakes or changes packets.
    Link,
    /// A node is cut off.
    Partition,
    /// A table is full.
    Table,
    /// The ring of events is full.
    Ring,
    /// Commands of the agent fail.
    Failures,
}

/// What the rounds of a scenario are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// All that a cluster does.
    All,
    /// The same, and what fails is mostly rows of policy.
    Policy,
    /// Only changes of policies, many at one moment, while their rows fail or agents die.
    Rows,
    /// Only changes after which pods of one policy have several, while rows fail.
    Splits,
    /// Only such changes while a pod gets an identity that nobody has had, and rows fail.
    Fresh,
}

/// A way to make random scenarios.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// What it looks for, for people.
    pub description: &'static str,
    /// What its rounds are about.
    pub subject: Subject,
    /// How many nodes there may be.
    pub nodes: &'static [u16],
    /// What may break, and how often in relation to the others.
    pub breakages: &'static [(Breakage, u32)],
    /// At most so many faults in one round.
    pub most_faults: u64,
    /// Of a hundred clusters so many have small pod CIDRs (/28 and /29).
    pub tiny_cidrs: u32,
    /// Of a hundred clusters so many have small conntrack and fragment tables.
    pub small_tables: u32,
    /// At most so many pods are made, and at most so many deleted, in one round.
    pub churn: u64,
    /// Of a hundred rounds so many change the Node objects of machines that are not simulated.
    pub node_churn: u32,
    /// Of a hundred scenarios so many have policies, whose changes come with every round.
    pub policies: u32,
    /// At most so many changes of policies and labels begin a round.
    pub changes: u64,
    /// Of a hundred pieces of traffic so many are odd: large datagrams, closed ports.
    pub odd: u32,
}

use Breakage::{Api, Cni, Failures, Kill, Link, Operator, Partition, Ring, Skew, Snapshot, Stall, Table};

/// Two or three mostly.
const SOME_NODES: &[u16] = &[2, 2, 3, 3, 4, 5];

/// Rows of policy fail while pods of one policy part.
const SPLIT: Profile = Profile {
    name: "split",
    description: "rows of policy fail while pods of one policy part, some to another and some to other rules",
    subject: Subject::Splits,
    nodes: &[1, 1, 2],
    breakages: &[],
    most_faults: 0,
    tiny_cidrs: 0,
    small_tables: 0,
    churn: 0,
    node_churn: 0,
    policies: 100,
    changes: 0,
    odd: 5,
};

/// All of them; the first is the default.
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "mixed",
        description: "everything at once",
        subject: Subject::All,
        nodes: SOME_NODES,
        breakages: &[
            (Kill, 4),
            (Operator, 1),
            (Snapshot, 2),
            (Stall, 2),
            (Skew, 1),
            (Api, 4),
            (Cni, 3),
            (Link, 2),
            (Partition, 1),
            (Table, 1),
            (Ring, 1),
            (Failures, 2),
        ],
        most_faults: 3,
        tiny_cidrs: 25,
        small_tables: 5,
        churn: 3,
        node_churn: 40,
        policies: 25,
        changes: 3,
        odd: 25,
    },
    Profile {
        name: "quiet",
        description: "pods come and go, nothing breaks",
        subject: Subject::All,
        nodes: SOME_NODES,
        breakages: &[],
        most_faults: 0,
        tiny_cidrs: 10,
        small_tables: 0,
        churn: 3,
        node_churn: 30,
        policies: 15,
        changes: 3,
        odd: 25,
    },
    Profile {
        name: "crash",
        description: "agents die at any command, start again, find older disks, stand still, read wrong clocks",
        subject: Subject::All,
        nodes: SOME_NODES,
        breakages: &[(Kill, 6), (Operator, 1), (Snapshot, 3), (Stall, 2), (Skew, 1), (Failures, 5)],
        most_faults: 4,
        tiny_cidrs: 40,
        small_tables: 0,
        churn: 3,
        node_churn: 30,
        policies: 25,
        changes: 3,
        odd: 10,
    },
    Profile {
        name: "api",
        description: "watches are cut, late, doubled, merged or stale, the API server is away or refuses; some agents die",
        subject: Subject::All,
        nodes: SOME_NODES,
        breakages: &[(Api, 8), (Operator, 1), (Kill, 2)],
        most_faults: 4,
        tiny_cidrs: 10,
        small_tables: 0,
        churn: 3,
        node_churn: 80,
        policies: 25,
        changes: 3,
        odd: 10,
    },
    Profile {
        name: "net",
        description: "links lose, delay, repeat, overtake and change packets, nodes are cut off",
        subject: Subject::All,
        nodes: SOME_NODES,
        breakages: &[(Link, 5), (Partition, 2)],
        most_faults: 3,
        tiny_cidrs: 5,
        small_tables: 0,
        churn: 1,
        node_churn: 0,
        policies: 0,
        changes: 3,
        odd: 25,
    },
    Profile {
        name: "cni",
        description: "storms of ADD and DEL, repeated, late, out of order, with hardly any addresses; some agents die",
        subject: Subject::All,
        nodes: SOME_NODES,
        breakages: &[(Cni, 8), (Kill, 2), (Stall, 1), (Failures, 2)],
        most_faults: 3,
        tiny_cidrs: 70,
        small_tables: 0,
        churn: 5,
        node_churn: 0,
        policies: 0,
        changes: 3,
        odd: 5,
    },
    Profile {
        name: "full",
        description: "tables and the ring of events are small or full",
        subject: Subject::All,
        nodes: SOME_NODES,
        breakages: &[(Table, 6), (Ring, 2), (Kill, 1), (Failures, 3)],
        most_faults: 3,
        tiny_cidrs: 30,
        small_tables: 25,
        churn: 3,
        node_churn: 30,
        policies: 25,
        changes: 3,
        odd: 30,
    },
    Profile {
        name: "policy",
        description: "policies and labels change while traffic flows; agents and the operator die, watches misbehave, rows fail",
        subject: Subject::Policy,
        nodes: SOME_NODES,
        breakages: &[(Kill, 4), (Operator, 2), (Api, 5), (Stall, 1), (Failures, 4), (Table, 1)],
        most_faults: 2,
        tiny_cidrs: 5,
        small_tables: 0,
        churn: 2,
        node_churn: 10,
        policies: 100,
        changes: 3,
        odd: 10,
    },
    Profile {
        name: "order",
        description: "rows of policy fail and agents die while policies change: nothing may be opened or closed on the way",
        subject: Subject::Rows,
        nodes: &[2],
        breakages: &[(Failures, 8), (Kill, 3), (Table, 1)],
        most_faults: 2,
        tiny_cidrs: 0,
        small_tables: 0,
        churn: 1,
        node_churn: 0,
        policies: 100,
        changes: 6,
        odd: 5,
    },
    SPLIT,
    Profile {
        name: "fresh",
        description: "pods get identities that nobody has had while rows of policy fail and the policy of all pods changes",
        subject: Subject::Fresh,
        ..SPLIT
    },
];

impl Profile {
    /// The profile with this name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }
}

impl Default for &'static Profile {
    fn default() -> Self {
        &PROFILES[0]
    }
}
