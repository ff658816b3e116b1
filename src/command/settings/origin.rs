//! Where an option is from that is not on the command line, for whoever has to mend it.

use clap::{
    Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::command::tips::suggest;

pub(super) struct Origin {
    long: String,
    place: String,
}

impl Origin {
    pub(super) fn new(long: &str, place: String) -> Self {
        Self { long: long.to_owned(), place }
    }

    /// Whether it is named in a text such as `--listen <ADDR>`.
    fn is_in(&self, text: &str) -> bool {
        text.split(['<', '>', ' ', '=', '|']).any(|word| word.strip_prefix("--") == Some(&self.long))
    }
}

/// Adds where those options are from that the error names.
pub(super) fn told(mut error: Error, origins: &[&Origin]) -> Error {
    // Of what is missing, the usage says what needs it.
    let is_missing = error.kind() == ErrorKind::MissingRequiredArgument;
    let is_of_use = |kind: ContextKind| match kind {
        ContextKind::InvalidArg | ContextKind::PriorArg => true,
        ContextKind::Usage => is_missing,
        _ => false,
    };
    let named: Vec<String> = error
        .context()
        .filter(|(kind, _)| is_of_use(*kind))
        .flat_map(|(_, value)| match value {
            ContextValue::String(text) => vec![text.clone()],
            ContextValue::Strings(texts) => texts.clone(),
            ContextValue::StyledStr(text) => vec![text.to_string()],
            _ => Vec::new(),
        })
        .collect();
    let is_named = |origin: &&&Origin| named.iter().any(|text| origin.is_in(text));
    let named = origins.iter().filter(is_named);
    suggest(&mut error, named.map(|origin| format!("--{} is from {}", origin.long, origin.place)));
    error
}
