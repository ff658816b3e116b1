//! The control groups (cgroups(7)) that the process is in, and those around them: each may limit what it uses.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where they are; of version 1 each controller has a folder there.
const ROOT: &str = "/sys/fs/cgroup";

/// The folders of all that this controller, such as `memory`, may limit the process by. Some may not be there: in a container the
/// path may be that outside of it.
pub(crate) fn folders(controller: &str) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    folders_of(&text, Path::new(ROOT), controller)
}

/// The same of what `/proc/self/cgroup` says.
pub(crate) fn folders_of(text: &str, root: &Path, controller: &str) -> Vec<PathBuf> {
    text.lines().flat_map(|line| of_line(line, root, controller)).collect()
}

fn of_line(line: &str, root: &Path, controller: &str) -> Vec<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
    let folders: &[&str] = match controllers {
        "" => &["", "unified"], // version 2
        list if list.split(',').any(|other| other == controller) => &[controller],
        _ => return Vec::new(),
    };
    let own = Path::new(path.trim_start_matches('/'));
    let of_folder = |folder: &&str| {
        let folder = root.join(folder);
        own.ancestors().map(move |group| folder.join(group)).collect::<Vec<_>>()
    };
    folders.iter().flat_map(of_folder).collect()
}

/// The number in a file. `None` where there is none, such as the word `max`.
pub(crate) fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}
