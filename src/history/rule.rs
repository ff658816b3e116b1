//! Which topics remember, and how much.

use std::time::Duration;

use crate::error::ServerError;

/// How much a topic remembers; see [`ServerBuilder::history`](crate::ServerBuilder::history).
///
/// ```
/// use switchboard::History;
/// use std::time::Duration;
///
/// let history = History::new(100, Duration::from_secs(3600));
/// # let _ = history;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    pub(crate) size: usize,
    pub(crate) age: Duration,
}

impl History {
    /// At most so many publications, the newest ones, and none that is older than this.
    pub const fn new(size: usize, age: Duration) -> Self {
        Self { size, age }
    }
}

/// Names of topics, or beginnings of names, and what these remember.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    exact: Vec<(Box<str>, History)>,
    /// The longest first.
    prefixes: Vec<(Box<str>, History)>,
}

impl Rules {
    /// # Errors
    /// [`ServerError::Config`]
    pub(crate) fn add(&mut self, topics: &str, history: History) -> Result<(), ServerError> {
        let refuse = |why: &str| Err(ServerError::config(format!("history of {topics:?}: {why}")));
        if history.size == 0 || history.age.is_zero() {
            return refuse("a number of publications and an age of at least 1 are needed");
        }
        if topics.is_empty() {
            return refuse("it needs the name of a topic, or the beginning of names and a `*`");
        }
        let (name, list) = match topics.strip_suffix('*') {
            Some(prefix) => (prefix, &mut self.prefixes),
            None => (topics, &mut self.exact),
        };
        if list.iter().any(|(other, _)| **other == *name) {
            return refuse("it was set before");
        }
        list.push((name.into(), history));
        list.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Ok(())
    }

    /// What this topic remembers, if it does.
    pub(crate) fn of(&self, topic: &str) -> Option<History> {
        let exact = self.exact.iter().find(|(name, _)| **name == *topic);
        let rule = exact.or_else(|| self.prefixes.iter().find(|(prefix, _)| topic.starts_with(&**prefix)));
        rule.map(|(_, history)| *history)
    }

    /// The one that remembers most publications, as it was given, and how many.
    pub(crate) fn largest(&self) -> Option<(String, usize)> {
        let exact = self.exact.iter().map(|(name, history)| (name, "", history));
        let all = exact.chain(self.prefixes.iter().map(|(prefix, history)| (prefix, "*", history)));
        let (name, end, history) = all.max_by_key(|(_, _, history)| history.size)?;
        Some((format!("{name}{end}"), history.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_rule_wins() {
        let mut rules = Rules::default();
        let history = |size| History::new(size, Duration::from_secs(1));
        for (topics, size) in [("*", 1), ("chat/*", 2), ("chat/a*", 3), ("chat/ab", 4)] {
            rules.add(topics, history(size)).unwrap();
        }
        let size = |topic| rules.of(topic).unwrap().size;
        assert_eq!(["x", "chat/x", "chat/abc", "chat/ab"].map(size), [1, 2, 3, 4]);
        assert_eq!(rules.largest(), Some(("chat/ab".to_owned(), 4)));
        rules.add("news*", history(5)).unwrap();
        assert_eq!(rules.largest(), Some(("news*".to_owned(), 5)));
        assert_eq!(Rules::default().of("x"), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut rules = Rules::default();
        let second = Duration::from_secs(1);
        rules.add("a*", History::new(1, second)).unwrap();
        for (topics, size, age) in
            [("a*", 1, second), ("", 1, second), ("b", 0, second), ("b", 1, Duration::ZERO)]
        {
            let error = rules.add(topics, History::new(size, age)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("history of {topics:?}: ")), "{error}");
        }
    }
}
