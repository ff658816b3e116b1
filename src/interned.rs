//! Texts that many connections have, each kept once: there are thousands of browsers, and few kinds of them.

use std::{
    borrow::Borrow,
    collections::HashSet,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex},
};

use crate::sync::LockExt;

/// With fewer texts it is not worth while to look for those that nobody has any more.
const FEW: usize = 64;

/// A text that others may have, too. It takes a pointer's room.
#[derive(Clone, Debug)]
pub(crate) struct Name(Arc<Text>);

/// Of its own, so that what takes 16 bytes to point to takes 8 in each connection.
#[derive(Debug)]
struct Text(Arc<str>);

impl Name {
    pub(crate) fn new(text: &str) -> Self {
        Self(Arc::new(Text(text.into())))
    }

    pub(crate) fn text(&self) -> &Arc<str> {
        &self.0.0
    }

    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.0) > 1 || Arc::strong_count(self.text()) > 1
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.text()
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text().hash(state);
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Name {}

/// The texts that are in use, and at most as many that are not.
#[derive(Debug, Default)]
pub(crate) struct Interned(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    names: HashSet<Name>,
    /// So many there were after those that nobody has were last thrown away.
    kept: usize,
}

impl Interned {
    /// The name of this text.
    pub(crate) fn name(&self, text: &str) -> Name {
        let mut table = self.0.locked();
        if let Some(name) = table.names.get(text) {
            return name.clone();
        }
        if table.names.len() >= 2 * table.kept.max(FEW) {
            table.names.retain(Name::is_in_use);
            table.kept = table.names.len();
        }
        let name = Name::new(text);
        table.names.insert(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_not_for_ever() {
        let interned = Interned::default();
        let (a, b) = (interned.name("a"), interned.name("b"));
        assert!(Arc::ptr_eq(a.text(), interned.name("a").text()) && a != b);
        for n in 0..10_000 {
            assert_eq!(&**interned.name(&n.to_string()).text(), n.to_string());
            assert!(interned.0.locked().names.len() <= 2 * FEW + 2);
        }
        assert!(Arc::ptr_eq(a.text(), interned.name("a").text()), "it is in use");
        let text = interned.name("only its text").text().clone();
        (0..1000).for_each(|n| drop(interned.name(&n.to_string())));
        assert!(Arc::ptr_eq(&text, interned.name("only its text").text()));
        let many: Vec<_> = (0..1000).map(|n| interned.name(&n.to_string())).collect();
        assert!(many.iter().enumerate().all(|(n, name)| **name.text() == *n.to_string()));
    }
}
