//! The store in one file of redb: a row of JSON for each network and node, one for the counters, one for the format.
//!
//! Every save is one transaction, so a file is never between two states. A commit writes through to the disk
//! (`fdatasync`): the state outlives the process and the power alike.
//!
//! redb trusts its file: on one that was damaged it may lose what was saved last without a word, or panic. So before a file
//! is opened, a copy of it in memory is put through redb's own check; a file that fails it is refused and left as it is.

mod proof;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::topology::{Counters, Network, Node, Topology};

type Rows = TableDefinition<'static, &'static str, &'static [u8]>;

const META: Rows = TableDefinition::new("meta");
const NETWORKS: Rows = TableDefinition::new("networks");
const NODES: Rows = TableDefinition::new("nodes");

const FORMAT_KEY: &str = "format";
const COUNTERS_KEY: &str = "counters";
/// The format of the rows; raised when an older program would misread them.
const FORMAT: u32 = 1;
/// Bytes redb may hold in memory. All rows of a large topology are a few MiB; the daemon keeps them itself.
const CACHE_BYTES: usize = 4 << 20;

/// Why the state could not be read or written: one line with the path and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon has it open.
    #[error("{path} is in use by another daemon: stop that one, or use another --state directory")]
    InUse {
        /// The state file.
        path: String,
    },
    /// The file or its directory cannot be read or written.
    #[error(
        "cannot use {path}: {error}: make the file and its directory writable for this user, or use another --state \
         directory"
    )]
    Unusable {
        /// The state file.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// It is not a state file, or was damaged.
    #[error(
        "{path} is damaged or not a state file of portolan ({what}): move it away to start without networks, or restore a \
         copy"
    )]
    Damaged {
        /// The state file.
        path: String,
        /// Where it does not hold together.
        what: String,
    },
    /// A newer program wrote it.
    #[error(
        "{path} has format {format}, newer than this portolan knows: use the portolan that wrote it, or move the file away"
    )]
    Newer {
        /// The state file.
        path: String,
        /// Its format.
        format: u32,
    },
}

/// The state file, locked while it is open.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    database: Database,
}

impl Store {
    /// Opens a state file, or makes one where there is none; its directory must exist.
    ///
    /// # Errors
    /// In use, not accessible, damaged, or of a newer format.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        proof::check(path, CACHE_BYTES)?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| database_error(path, error))?;
        let store = Store { path: path.into(), database };
        store.check_format()?;
        Ok(store)
    }

    /// Refuses a newer format, and notes ours in a new file.
    fn check_format(&self) -> Result<(), StoreError> {
        let transaction = self.wrap(self.database.begin_write())?;
        {
            let mut meta = self.wrap(transaction.open_table(META))?;
            let found =
                self.wrap(meta.get(FORMAT_KEY))?.map(|row| self.parse(FORMAT_KEY, row.value()));
            match found.transpose()? {
                Some(FORMAT) => return Ok(()),
                Some(newer) => {
                    return Err(StoreError::Newer { path: shown(&self.path), format: newer });
                }
                None => {
                    self.wrap(meta.insert(FORMAT_KEY, FORMAT.to_string().as_bytes()))?;
                }
            }
            self.wrap(transaction.open_table(NETWORKS))?;
            self.wrap(transaction.open_table(NODES))?;
        }
        self.wrap(transaction.commit())
    }

    /// What was saved last; an empty topology from a new file. No endpoint is wired.
    ///
    /// # Errors
    /// Not readable, or damaged.
    pub fn load(&self) -> Result<Topology, StoreError> {
        let transaction = self.wrap(self.database.begin_read())?;
        let meta = self.wrap(transaction.open_table(META))?;
        let counters: Counters = match self.wrap(meta.get(COUNTERS_KEY))? {
            Some(row) => self.parse(COUNTERS_KEY, row.value())?,
            None => Counters::default(),
        };
        let networks: Vec<Network> = self.rows(&self.wrap(transaction.open_table(NETWORKS))?)?;
        let nodes: Vec<Node> = self.rows(&self.wrap(transaction.open_table(NODES))?)?;
        Topology::restore(counters, networks, nodes)
            .map_err(|what| StoreError::Damaged { path: shown(&self.path), what })
    }

    /// Saves `new` where `old` was saved, or an empty topology where nothing was: the rows in which they differ, all or
    /// none. Ports are not part of what is saved.
    ///
    /// # Errors
    /// Not writable; what was saved before is then still there.
    pub fn save(&self, old: &Topology, new: &Topology) -> Result<(), StoreError> {
        let networks = changes(old.networks(), new.networks(), |network| network.id);
        let nodes = changes(old.nodes(), new.nodes(), |node| node.id);
        let counters = (old.counters() != new.counters()).then(|| json(new.counters()));
        if networks.is_empty() && nodes.is_empty() && counters.is_none() {
            return Ok(());
        }
        let transaction = self.wrap(self.database.begin_write())?;
        {
            if let Some(counters) = counters {
                let mut meta = self.wrap(transaction.open_table(META))?;
                self.wrap(meta.insert(COUNTERS_KEY, counters.as_slice()))?;
            }
            for (table, changes) in [(NETWORKS, networks), (NODES, nodes)] {
                let mut table = self.wrap(transaction.open_table(table))?;
                for (key, row) in changes {
                    match row {
                        Some(row) => self.wrap(table.insert(key.as_str(), row.as_slice()))?,
                        None => self.wrap(table.remove(key.as_str()))?,
                    };
                }
            }
        }
        self.wrap(transaction.commit())
    }

    fn rows<T: DeserializeOwned>(
        &self,
        table: &impl ReadableTable<&'static str, &'static [u8]>,
    ) -> Result<Vec<T>, StoreError> {
        let mut rows = Vec::new();
        for row in self.wrap(table.iter())? {
            let (key, value) = self.wrap(row)?;
            rows.push(self.parse(key.value(), value.value())?);
        }
        Ok(rows)
    }

    fn parse<T: DeserializeOwned>(&self, key: &str, row: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(row).map_err(|error| StoreError::Damaged {
            path: shown(&self.path),
            what: format!("row {key}: {error}"),
        })
    }

    fn wrap<T, E: Into<redb::Error>>(&self, result: Result<T, E>) -> Result<T, StoreError> {
        result.map_err(|error| match error.into() {
            redb::Error::Io(error) => StoreError::Unusable { path: shown(&self.path), error },
            error => StoreError::Damaged { path: shown(&self.path), what: error.to_string() },
        })
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// What redb says of a file it cannot open. A file that is none of its own is an IO error of invalid data to it.
fn database_error(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: shown(path) },
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            StoreError::Unusable { path: shown(path), error }
        }
        error => StoreError::Damaged { path: shown(path), what: error.to_string() },
    }
}

/// A row as it is kept. Our types have string keys and no number that JSON lacks, so this cannot fail.
fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// The rows to write, and with `None` those to remove, by key. Rows behind one pointer are the same; others are compared as
/// they are kept, so that a port that came or went writes nothing.
fn changes<'a, T: Serialize + 'a, K: Ord + Copy + ToString>(
    old: impl Iterator<Item = &'a Arc<T>>,
    new: impl Iterator<Item = &'a Arc<T>>,
    key: impl Fn(&T) -> K,
) -> Vec<(String, Option<Vec<u8>>)> {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    let mut changes = Vec::new();
    loop {
        let (before, after) = (old.peek().map(|row| key(row)), new.peek().map(|row| key(row)));
        match (before, after) {
            (None, None) => return changes,
            (Some(gone), _) if after.is_none_or(|after| gone < after) => {
                changes.push((gone.to_string(), None));
                old.next();
            }
            (_, Some(made)) if before.is_none_or(|before| made < before) => {
                changes.push((made.to_string(), new.next().map(|row| json(&**row))));
            }
            _ => {
                if let (Some(before), Some(after)) = (old.next(), new.next())
                    && !Arc::ptr_eq(before, after)
                {
                    let row = json(&**after);
                    if json(&**before) != row {
                        changes.push((key(after).to_string(), Some(row)));
                    }
                }
            }
        }
    }
}
