//! Several programs over the same variables: TF Encrypted's tags.
//!
//! Every entry point is a program of its own, planned and dealt for by itself. What ties them together are the *kept*
//! variables: an entry point that assigns one changes what all others find in it from then on.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{MAX_NAME, Node, Op, Program};
use crate::error::{Blame, PlanError};

/// What the only entry point of a program without names for them is called.
pub const RUN: &str = "run";
/// More entry points than anybody writes.
const MAX_ENTRIES: usize = 64;

/// Programs by the names of their entry points, which agree about the variables that they share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, Program>")]
pub struct EntryPoints(BTreeMap<String, Program>);

impl TryFrom<BTreeMap<String, Program>> for EntryPoints {
    type Error = PlanError;

    fn try_from(programs: BTreeMap<String, Program>) -> Result<Self, PlanError> {
        Self::new(programs)
    }
}

impl From<&Program> for EntryPoints {
    fn from(program: &Program) -> Self {
        Self([(RUN.into(), program.clone())].into())
    }
}

impl From<Program> for EntryPoints {
    fn from(program: Program) -> Self {
        Self([(RUN.into(), program)].into())
    }
}

impl From<&EntryPoints> for EntryPoints {
    fn from(entries: &EntryPoints) -> Self {
        entries.clone()
    }
}

impl EntryPoints {
    /// Programs that belong together.
    ///
    /// # Errors
    /// There are none or too many, a name is none, they have different rings, or a variable differs between two of them.
    pub fn new(programs: BTreeMap<String, Program>) -> Result<Self, PlanError> {
        let refuse = |why: String| Err(PlanError::Program(why));
        if programs.is_empty() || programs.len() > MAX_ENTRIES {
            return refuse(format!("{} entry points, 1 to {MAX_ENTRIES} are allowed", programs.len()));
        }
        let mut variables: BTreeMap<&str, (&str, &Node)> = BTreeMap::new();
        let mut numbers = None;
        for (entry, program) in &programs {
            let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
            if entry.is_empty() || entry.len() > MAX_NAME || !entry.chars().all(letters) {
                return refuse(format!("{entry:?} cannot be an entry point's name: use a-z, 0-9, '_', '-'"));
            }
            if *numbers.get_or_insert(program.numbers()) != program.numbers() {
                return refuse(format!("the entry point {entry} has another ring than the others"));
            }
            for (_, node) in program.variables() {
                let Op::Variable { name, .. } = &node.op else { continue };
                let (first, known) = *variables.entry(name).or_insert((entry, node));
                if (&known.op, &known.shape, known.bound) != (&node.op, &node.shape, node.bound) {
                    return refuse(format!(
                        "the variable {name} is not the same in the entry points {first} and {entry}"
                    ));
                }
            }
        }
        Ok(Self(programs))
    }

    /// The programs by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Program)> {
        self.0.iter().map(|(name, program)| (name.as_str(), program))
    }

    /// One of them.
    ///
    /// # Errors
    /// There is none of that name; the error lists those that there are.
    pub fn get(&self, name: &str) -> Result<&Program, Blame> {
        self.0.get(name).ok_or_else(|| Blame::you(no_entry(name, self.0.keys().map(String::as_str))))
    }

    /// The serialised form.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Reads and validates a serialised form.
    ///
    /// # Errors
    /// Whoever gave it is to blame: it is cut off, of another format, or no entry points.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Blame> {
        match postcard::take_from_bytes::<Self>(bytes) {
            Ok((entries, [])) => Ok(entries),
            Ok(_) => Err(Blame::you("entry points with bytes after their end")),
            Err(_) => Err(Blame::you("entry points that are cut off, damaged, or of another format")),
        }
    }
}

/// What is said when an entry point is asked for that there is not.
pub fn no_entry<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    format!("no entry point {name:?}; there are: {}", known.collect::<Vec<_>>().join(", "))
}
