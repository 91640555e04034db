//! The agent's two doors to a simulated node.
//!
//! Every call takes effect at once; then a little virtual time passes in which packets travel and other things happen,
//! so that everybody sees every state in between. The agent may die after any call.

use agent_control::memory::MemoryNode;
use agent_control::ports::{
    BaseFacts, BaseSpec, CtClock, Cursor, Document, PodInterfaceFacts, PodInterfaceSpec, PodLink,
    PortErrorKind, Program, Route, Row, Scan, Table,
};
use agent_control::{MapStore, NodeOps, PortError};
use dataplane_native::{Native, UpdateError};

use crate::queue::NodeId;
use crate::sim::Sim;
use crate::view::digest;
use crate::world::World;

/// How many commands an agent may still issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Commands {
    /// It dies after so many more.
    pub(crate) left: Option<u32>,
    /// It is dead; nothing has an effect any more.
    pub(crate) dead: bool,
    /// Issued since it was started.
    pub(crate) issued: u64,
    /// Of these, those that changed a row of a table.
    pub(crate) rows_changed: u64,
}

impl Commands {
    /// One more; false if there is nobody any more to issue it.
    fn issue(&mut self) -> bool {
        if self.dead {
            return false;
        }
        self.issued += 1;
        if let Some(left) = &mut self.left {
            if *left <= 1 {
                self.dead = true;
            }
            *left = left.saturating_sub(1);
        }
        true
    }
}

fn crashed(operation: &str) -> PortError {
    PortError::terminal(operation, "the process has been killed").with_kind(PortErrorKind::Crashed)
}

impl World {
    /// A row is written or removed, or was tried to be. The digest of the run has all of it: two runs that differ in what an agent
    /// writes are told apart before a packet meets the row.
    fn note_row(&mut self, n: NodeId, what: &str, table: Table, key: &[u8], value: &[u8]) {
        // Length first, so that no byte of the key can be taken for one of the value.
        let row = digest(digest(key.len() as u64, key), value);
        self.note(n, what, digest(table as u64, &row.to_le_bytes()));
    }

    /// A command is issued, if there is still somebody to issue it and nothing makes it fail.
    fn command(&mut self, n: NodeId, what: &str, place: &str) -> Result<(), PortError> {
        if !self.nodes[n].commands.issue() {
            return Err(crashed(what));
        }
        let p = self.cluster_faults.failures(n, place);
        if p > 0.0 && self.rng.chance(p) {
            return Err(PortError::retryable(what, "failed on purpose"));
        }
        Ok(())
    }
}

/// The tables of a node.
pub(crate) struct MapPort<'a> {
    pub(crate) sim: &'a Sim,
    pub(crate) node: NodeId,
}

impl MapPort<'_> {
    fn read<T>(&self, what: &str, place: &str, read: impl FnOnce(&Native) -> T) -> Result<T, PortError> {
        let mut world = self.sim.world();
        world.command(self.node, what, place)?;
        Ok(read(&world.nodes[self.node].native))
    }

    fn write(
        &self,
        what: &'static str,
        table: Table,
        key: &[u8],
        value: &[u8],
        write: impl FnOnce(&mut Native) -> Result<bool, UpdateError>,
    ) -> Result<(), PortError> {
        let result = {
            let mut world = self.sim.world();
            world.command(self.node, what, table.name())?;
            let node = &mut world.nodes[self.node];
            let result = write(&mut node.native);
            if matches!(result, Ok(true)) && !table.is_the_dataplanes() {
                node.commands.rows_changed += 1;
                let revision = node.native.tables().config.get(0).map_or(0, |config| config.revision);
                if revision != node.revision {
                    node.revision = revision;
                    world.seal_rows(self.node);
                }
                if table == Table::Config {
                    world.check_routers(self.node);
                }
            }
            world.note_row(self.node, what, table, key, value);
            let tells = matches!(table, Table::Endpoints | Table::Ipcache | Table::Policy);
            if matches!(result, Ok(true)) && tells {
                world.look_between(self.node, table, key);
            }
            result
        };
        self.sim.let_time_pass(self.node);
        result.map(drop).map_err(|error| {
            let kind = if error == UpdateError::Full { PortErrorKind::Full } else { PortErrorKind::Other };
            PortError::retryable(format!("{what} {}", table.name()), error).with_kind(kind)
        })
    }
}

impl MapStore for MapPort<'_> {
    fn dump(&mut self, table: Table) -> Result<Vec<Row>, PortError> {
        let rows = self.read("dump", table.name(), |native| {
            let rows = native.tables().dump(table.name()).unwrap_or_default();
            // The array's one row exists from the beginning; zero means never written.
            let rows = rows.into_iter().map(|(key, value)| Row { key, value });
            let is_there = |row: &Row| table != Table::Config || row.value.iter().any(|byte| *byte != 0);
            rows.filter(is_there).collect::<Vec<Row>>()
        })?;
        if table == Table::Staged {
            self.sim.world().staged_read(self.node, &rows);
        }
        Ok(rows)
    }

    fn upsert(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), PortError> {
        self.write("upsert", table, key, value, |native| {
            let changed = native.tables().lookup(table.name(), key).as_deref() != Some(value);
            native.tables_mut().update(table.name(), key, value).map(|()| changed)
        })
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), PortError> {
        if matches!(table, Table::Ct4 | Table::Ct6) {
            self.sim.world().check_expired(self.node, table, key);
        }
        if matches!(table, Table::Nat4 | Table::Nat6) {
            self.sim.world().check_port_freed(self.node, key);
        }
        self.write("delete", table, key, &[], |native| {
            match native.tables_mut().delete(table.name(), key) {
                Ok(()) => Ok(true),
                Err(UpdateError::NoRow) => Ok(false),
                Err(error) => Err(error),
            }
        })?;
        if table == Table::Staged {
            self.sim.world().staged_removed(self.node, key);
        }
        Ok(())
    }

    fn scan(&mut self, table: Table, cursor: Option<&Cursor>, limit: usize) -> Result<Scan, PortError> {
        self.read("scan", table.name(), |native| {
            let rows = native.tables().dump(table.name()).unwrap_or_default();
            // As the kernel does: without the row at the cursor the scan starts over.
            let from = cursor
                .and_then(|cursor| rows.binary_search_by(|(key, _)| key.cmp(&cursor.0)).ok())
                .map_or(0, |at| at + 1);
            let slice: Vec<Row> =
                rows.into_iter().skip(from).take(limit).map(|(key, value)| Row { key, value }).collect();
            let next =
                (slice.len() == limit).then(|| slice.last().map(|row| Cursor(row.key.clone()))).flatten();
            Scan { rows: slice, next }
        })
    }

    fn ct_clock(&mut self) -> Result<CtClock, PortError> {
        self.sim.world().set_clock(self.node);
        self.read("read the clock", "CLOCK", |native| CtClock {
            ticks: native.clock().ticks,
            ticks_per_s: crate::node::TICKS_PER_S,
        })
    }
}

/// Links, routes, programs and state directory of a node.
pub(crate) struct NodePort<'a> {
    pub(crate) sim: &'a Sim,
    pub(crate) node: NodeId,
}

/// What a command may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changes {
    /// Nothing.
    Nothing,
    /// Links, and with them all else.
    Links,
    /// Routes alone.
    Routes,
    /// The state directory alone.
    State,
}

impl Changes {
    /// What such commands are about, as faults name it.
    const fn place(self) -> &'static str {
        match self {
            Self::Nothing | Self::Links => "links",
            Self::Routes => "routes",
            Self::State => "state",
        }
    }
}

impl NodePort<'_> {
    fn act<T>(
        &self,
        what: &'static str,
        changes: Changes,
        act: impl FnOnce(&mut MemoryNode) -> Result<T, PortError>,
    ) -> Result<T, PortError> {
        let result = {
            let mut world = self.sim.world();
            world.command(self.node, what, changes.place())?;
            let result = act(&mut world.nodes[self.node].memory);
            match changes {
                Changes::Links => world.follow_links(self.node),
                Changes::Routes => world.follow_routes(self.node),
                Changes::Nothing | Changes::State => {}
            }
            if changes != Changes::Nothing {
                world.note(self.node, what, u64::from(result.is_ok()));
            }
            result
        };
        if changes != Changes::Nothing {
            self.sim.let_time_pass(self.node);
        }
        result
    }
}

impl NodeOps for NodePort<'_> {
    fn ensure_base(&mut self, spec: &BaseSpec) -> Result<BaseFacts, PortError> {
        self.act("ensure base", Changes::Links, |node| node.ensure_base(spec))
    }

    fn attach(&mut self, link: &str, ifindex: u32, program: Program) -> Result<(), PortError> {
        self.act("attach", Changes::Links, |node| node.attach(link, ifindex, program))
    }

    fn detach(&mut self, link: &str, ifindex: u32, program: Program) -> Result<(), PortError> {
        self.act("detach", Changes::Links, |node| node.detach(link, ifindex, program))
    }

    fn set_sockets(&mut self, on: bool) -> Result<(), PortError> {
        // What changes nothing is no command.
        if self.sim.world().nodes[self.node].memory.sockets() == on {
            return Ok(());
        }
        self.act("set sockets", Changes::Links, |node| node.set_sockets(on))
    }

    fn list_programs(&mut self) -> Result<Vec<(String, u32, Program)>, PortError> {
        self.act("list programs", Changes::Nothing, NodeOps::list_programs)
    }

    fn list_routes(&mut self) -> Result<Vec<Route>, PortError> {
        self.act("list routes", Changes::Nothing, NodeOps::list_routes)
    }

    fn replace_route(&mut self, route: &Route) -> Result<(), PortError> {
        self.sim.world().check_rows_before(self.node, route);
        self.act("replace route", Changes::Routes, |node| node.replace_route(route))
    }

    fn delete_route(&mut self, route: &Route) -> Result<(), PortError> {
        self.act("delete route", Changes::Routes, |node| node.delete_route(route))
    }

    fn create_pod_interface(&mut self, spec: &PodInterfaceSpec) -> Result<PodInterfaceFacts, PortError> {
        let made =
            self.act("create pod interface", Changes::Links, |node| node.create_pod_interface(spec))?;
        self.sim.world().check_addresses(self.node, spec);
        Ok(made)
    }

    fn check_pod_interface(&mut self, spec: &PodInterfaceSpec) -> Result<Vec<String>, PortError> {
        self.act("check pod interface", Changes::Nothing, |node| node.check_pod_interface(spec))
    }

    fn delete_pod_interface(&mut self, host_name: &str) -> Result<(), PortError> {
        self.act("delete pod interface", Changes::Links, |node| node.delete_pod_interface(host_name))
    }

    fn list_pod_links(&mut self) -> Result<Vec<PodLink>, PortError> {
        self.act("list pod links", Changes::Nothing, NodeOps::list_pod_links)
    }

    fn save_state(&mut self, document: &Document) -> Result<(), PortError> {
        self.act("save document", Changes::State, |node| node.save_state(document))?;
        self.sim.world().keep_snapshot(self.node);
        Ok(())
    }

    fn remove_state(&mut self, name: &str) -> Result<(), PortError> {
        self.act("remove document", Changes::State, |node| node.remove_state(name))?;
        self.sim.world().keep_snapshot(self.node);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sim_scenario::model::Cluster;

    use super::*;

    /// The digest of a run in which one row is written.
    fn trace(table: Table, key: &[u8], value: &[u8]) -> String {
        let sim = Sim::new(World::new(&Cluster::default(), 1, false));
        let mut port = MapPort { sim: &sim, node: 0 };
        port.upsert(table, key, value).expect("the table takes it");
        sim.into_world().trace.hash()
    }

    #[test]
    fn the_digest_of_a_run_tells_rows_apart_by_table_key_and_value() {
        let [key, other_key] = [[1; 12], [2; 12]];
        let [value, other_value] = [[0; 16], [3; 16]];
        let wanted = trace(Table::Policy, &key, &value);
        assert_eq!(trace(Table::Policy, &key, &value), wanted);
        assert_ne!(trace(Table::Policy, &other_key, &value), wanted);
        assert_ne!(trace(Table::Policy, &key, &other_value), wanted);
    }
}
