//! PEM (RFC 7468) as it is found in files: with text before and between its blocks, a byte order mark, any kind of line
//! end, headers. A block that is cut off or damaged says so, when somebody wants it.

use std::borrow::Cow;

use data_encoding::BASE64;

pub(super) const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

pub(super) struct Block {
    /// Such as `CERTIFICATE`.
    pub(super) label: String,
    /// Encrypted as RFC 1421 has it, which the label does not say.
    pub(super) encrypted: bool,
    /// What is encoded, or what is wrong with it.
    pub(super) content: Result<Vec<u8>, String>,
}

/// All blocks, in their order.
pub(super) fn blocks(file: &[u8]) -> Vec<Block> {
    let text = text(file);
    // A block ends at the latest where the next one begins.
    text.split(BEGIN).skip(1).filter_map(block).collect()
}

/// Windows writes text also as UTF-16. A byte order mark of UTF-8 is but text before the first block.
fn text(file: &[u8]) -> Cow<'_, str> {
    let units = |of: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = file[2..].chunks_exact(2).map(|unit| of([unit[0], unit[1]])).collect();
        String::from_utf16_lossy(&units).into()
    };
    match file {
        [0xff, 0xfe, ..] => units(u16::from_le_bytes),
        [0xfe, 0xff, ..] => units(u16::from_be_bytes),
        _ => String::from_utf8_lossy(file),
    }
}

/// What follows the word BEGIN.
fn block(text: &str) -> Option<Block> {
    let (label, rest) = text.split_once(DASHES)?;
    if label.contains(['\n', '\r']) {
        return None;
    }
    let last_line = format!("{label}{DASHES}");
    let (body, complete) = match rest.split_once(END) {
        Some((body, end)) if end.starts_with(&last_line) => (body, Ok(())),
        Some((body, end)) if !last_line.starts_with(end.trim_end()) => {
            (body, Err(format!("BEGIN {label} is ended by another END")))
        }
        _ => (rest, Err(format!("it is cut off: BEGIN {label} has no END {label}; copy the file again"))),
    };
    let (headers, lines): (Vec<&str>, Vec<&str>) =
        body.split(['\n', '\r']).partition(|line| line.contains(':'));
    let encrypted = headers.iter().any(|line| line.contains("ENCRYPTED"));
    let content = complete.and_then(|()| {
        let base64: Vec<u8> = lines.concat().bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let damaged = |e| format!("it is damaged: what is in BEGIN {label} is not base64 ({e})");
        BASE64.decode(&base64).map_err(damaged)
    });
    Some(Block { label: label.to_owned(), encrypted, content })
}

/// One block, as all programs read it.
#[cfg(any(feature = "tls", test))]
pub(super) fn encode(label: &str, content: &[u8]) -> String {
    let base64 = BASE64.encode(content);
    let mut pem = format!("{BEGIN}{label}{DASHES}\n");
    let mut rest = &*base64;
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem + END + label + DASHES + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(file: &[u8]) -> Vec<(String, Option<Vec<u8>>)> {
        blocks(file).into_iter().map(|block| (block.label, block.content.ok())).collect()
    }

    #[test]
    fn what_is_encoded_is_read_however_it_is_wrapped() {
        let content: Vec<u8> = (0..=200).collect();
        let pem = encode("A KEY", &content);
        assert!(pem.lines().all(|line| line.len() <= 64));
        let expected = [("A KEY".to_owned(), Some(content))];
        let utf16 = |of: fn(u16) -> [u8; 2]| -> Vec<u8> {
            format!("\u{feff}{pem}").encode_utf16().flat_map(of).collect()
        };
        for file in [
            pem.clone().into_bytes(),
            format!("\u{feff}{pem}").into_bytes(),
            format!("Bag Attributes\n  name: x\n{pem}\ntrailing").into_bytes(),
            pem.replace('\n', "\r\n").into_bytes(),
            pem.replace('\n', "\r").into_bytes(),
            pem.replace('\n', "\n    ").into_bytes(),
            pem.replace("KEY-----\n", "KEY-----\nComment: x\n\n").into_bytes(),
            [b"caf\xe9 \xff".as_slice(), pem.as_bytes()].concat(),
            utf16(u16::to_le_bytes),
            utf16(u16::to_be_bytes),
        ] {
            assert_eq!(contents(&file), expected, "{}", String::from_utf8_lossy(&file));
        }
    }

    #[test]
    fn blocks_follow_each_other_and_damage_is_told_of_one() {
        let [one, two] = ["ONE", "TWO"].map(|label| encode(label, b"content"));
        let cut = &one[..one.len() - 20];
        let found = contents(format!("{cut}\n{two}{one}").as_bytes());
        assert_eq!(found.iter().map(|(label, _)| &**label).collect::<Vec<_>>(), ["ONE", "TWO", "ONE"]);
        assert_eq!(found.iter().map(|(_, c)| c.is_some()).collect::<Vec<_>>(), [false, true, true]);
        for nothing in ["", "-----BEGIN ", "-----BEGIN A", "-----BEGIN \n-----", "-----END A-----", "text"] {
            assert!(blocks(nothing.as_bytes()).is_empty(), "{nothing}");
        }
        for damaged in ["-----BEGIN A-----", "-----BEGIN A----------END B-----", &one.replace('=', "")] {
            assert!(matches!(&contents(damaged.as_bytes())[..], [(_, None)]), "{damaged}");
        }
    }

    #[test]
    fn the_old_way_to_encrypt_is_seen() {
        let pem = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----";
        assert!(blocks(pem.as_bytes())[0].encrypted);
        assert!(!blocks(encode("A", b"x").as_bytes())[0].encrypted);
    }
}
