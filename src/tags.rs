//! What an application notes about a connection.

use std::{fmt, sync::Arc};

use crate::error::OverLimit;

/// So many tags a connection has at most, and so many bytes they have together.
const MOST: usize = 16;
const MOST_BYTES: usize = 1024;

/// The tags of a connection, set by [`Opening::set_tag`](crate::Opening::set_tag): keys and values, in the order in which they
/// were set. Cheap to clone.
///
/// ```
/// # fn example(ws: &switchboard::WebSocket) {
/// println!("{}", ws.tags().get("device").unwrap_or("unknown"));
/// for (key, value) in ws.tags() {
///     println!("{key}: {value}");
/// }
/// # }
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tags(Option<Arc<Vec<Tag>>>); // without any, nothing but this

type Tag = (Box<str>, Box<str>);

impl Tags {
    pub(crate) const NONE: Self = Self(None);

    /// The value of a tag.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == key).map(|(_, value)| value)
    }

    /// All tags: keys and values.
    pub fn iter(&self) -> TagsIter<'_> {
        TagsIter(self.all().iter())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn all(&self) -> &[Tag] {
        self.0.as_deref().map(Vec::as_slice).unwrap_or_default()
    }

    /// Sets one; nothing changes if that would be too much.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), OverLimit> {
        let others = self.iter().filter(|(other, _)| *other != key);
        let (count, bytes) =
            others.fold((0, 0), |(count, bytes), (key, value)| (count + 1, bytes + key.len() + value.len()));
        let fits = count < MOST && key.len().saturating_add(value.len()) <= MOST_BYTES - bytes;
        if key.is_empty() || !fits {
            return Err(OverLimit::Tags);
        }
        let all = Arc::make_mut(self.0.get_or_insert_default());
        match all.iter_mut().find(|(other, _)| **other == *key) {
            Some((_, old)) => *old = value.into(),
            None => all.push((key.into(), value.into())),
        }
        Ok(())
    }
}

/// The tags of a connection; made by [`Tags::iter`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens until it is iterated over"]
pub struct TagsIter<'a>(std::slice::Iter<'a, Tag>);

impl<'a> Iterator for TagsIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, value)| (&**key, &**value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<'a> IntoIterator for &'a Tags {
    type Item = (&'a str, &'a str);
    type IntoIter = TagsIter<'a>;

    fn into_iter(self) -> TagsIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_key_counts() {
        let mut tags = Tags::default();
        assert!(tags.is_empty() && tags.get("a").is_none() && size_of::<Tags>() == size_of::<usize>());
        for (key, value) in [("a", "1"), ("b", ""), ("a", "2")] {
            tags.set(key, value).unwrap();
        }
        let clone = tags.clone();
        tags.set("c", "3").unwrap();
        assert_eq!(format!("{clone:?} {tags:?}"), r#"{"a": "2", "b": ""} {"a": "2", "b": "", "c": "3"}"#);
        assert_eq!((tags.get("b"), tags.get("x"), tags.len()), (Some(""), None, 3));
    }

    #[test]
    fn their_number_and_their_bytes_have_a_bound() {
        let mut tags = Tags::default();
        assert_eq!(tags.set("", "x"), Err(OverLimit::Tags));
        assert_eq!(tags.set("k", &"x".repeat(MOST_BYTES)), Err(OverLimit::Tags));
        assert!(tags.is_empty(), "nothing is left of what was refused");
        tags.set("k", &"x".repeat(MOST_BYTES - 1)).unwrap();
        assert_eq!(tags.set("l", ""), Err(OverLimit::Tags));
        tags.set("k", &"y".repeat(MOST_BYTES - 1)).unwrap();
        tags.set("k", "").unwrap();
        for n in 1..MOST {
            tags.set(&n.to_string(), "x").unwrap();
        }
        assert_eq!(tags.set("one more", "x"), Err(OverLimit::Tags));
        tags.set("1", "y").unwrap();
        assert_eq!((tags.len(), tags.get("1")), (MOST, Some("y")));
    }
}
