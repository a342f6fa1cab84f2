//! Real text: the longest texts of this repository, and the machine's licences and documentation.
#![allow(dead_code, clippy::unwrap_used)] // Each test uses its part.

use std::fs;
use std::path::{Path, PathBuf};

/// The longest line that is used, in bytes: below what a message may have by default.
const LINE_MAX: usize = 4000;
/// Files that are looked at in one place, and how large they may be.
const FILES_MAX: usize = 4000;
const FILE_BYTES: u64 = 4 << 20;

/// So many lines of real text: none is empty, and none has what a line of text has not. Longest
/// texts first; when there is not enough of it, it begins again.
pub fn lines(count: usize) -> Vec<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = [here.join("docs"), here.join("src"), here.join("LICENSE")];
    let foreign = ["/usr/share/common-licenses", "/usr/share/doc"].map(PathBuf::from);
    let mut files = Vec::new();
    for place in places.iter().chain(&foreign) {
        collect(place, &mut files);
    }
    files.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let texts = files.iter().filter_map(|(_, path)| fs::read_to_string(path).ok());
    let mut lines: Vec<String> = Vec::new();
    for text in texts {
        lines.extend(text.lines().map(str::trim_end).filter(|l| is_line(l)).map(str::to_owned));
        if lines.len() >= count {
            break;
        }
    }
    assert!(!lines.is_empty(), "this repository has at least its licence");
    lines.into_iter().cycle().take(count).collect()
}

fn is_line(line: &str) -> bool {
    !line.is_empty() && line.len() <= LINE_MAX && !line.contains('\0')
}

fn collect(place: &Path, files: &mut Vec<(u64, PathBuf)>) {
    let end = files.len() + FILES_MAX;
    let mut open = vec![place.to_owned()];
    while let Some(path) = open.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            let Ok(entries) = fs::read_dir(&path) else { continue };
            open.extend(entries.flatten().map(|e| e.path()));
        } else if metadata.is_file() && metadata.len() <= FILE_BYTES && files.len() < end {
            files.push((metadata.len(), path));
        }
    }
}
