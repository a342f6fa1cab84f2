//! The configuration's files: one that is named, and the drop-ins in `conf.d` beside it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Config, Source, default_path};
use crate::exit::{Exit, Failure};
use crate::visible::visible;

/// The directory of drop-ins, beside the configuration file.
pub const DROP_INS: &str = "conf.d";
/// The largest configuration file in bytes.
const FILE_MAX: u64 = 1 << 20;
/// The most drop-ins.
const DROP_INS_MAX: usize = 100;

impl Config {
    /// Reads a configuration file and its drop-ins.
    ///
    /// # Errors
    /// One cannot be read, or has mistakes; the failure's message has a line for each.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        Self::parse_all(&sources(path)?).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Failure::new(Exit::Config, lines.join("\n"))
        })
    }
}

/// The file itself, then the drop-ins in the order of their names. The default file may be missing:
/// every key has a default.
///
/// # Errors
/// One of them cannot be read.
pub fn sources(path: &Path) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && path == Path::new(default_path()) => {}
        opened => sources.push(read(path, opened)?),
    }
    for path in drop_ins(&path.parent().unwrap_or(Path::new("")).join(DROP_INS))? {
        // What is no file must not keep a service that reloads waiting.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        let regular = opened.and_then(|file| match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("it is not a regular file")),
        });
        sources.push(read(&path, regular)?);
    }
    Ok(sources)
}

/// The drop-ins' paths in order; editors' and packagers' files have other endings.
fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match std::fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| unreadable(directory, &e.to_string()))?,
    };
    let mut names: Vec<OsString> = Vec::new();
    for entry in entries {
        let name = entry.map_err(|e| unreadable(directory, &e.to_string()))?.file_name();
        if name.as_bytes().ends_with(b".toml") && !name.as_bytes().starts_with(b".") {
            names.push(name);
        }
        if names.len() > DROP_INS_MAX {
            let why = format!("it has more than {DROP_INS_MAX} files");
            return Err(unreadable(directory, &why));
        }
    }
    names.sort();
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

fn read(path: &Path, opened: io::Result<File>) -> Result<Source, Failure> {
    let failure = |why: String| unreadable(path, &why);
    let mut bytes = Vec::new();
    let file = opened.map_err(|e| failure(e.to_string()))?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|e| failure(e.to_string()))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(failure(format!("it has more than {FILE_MAX} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].split(|&b| b == b'\n').count();
        failure(format!("it is not UTF-8 (line {line})"))
    })?;
    Ok(Source { file: path.display().to_string(), text })
}

fn unreadable(path: &Path, why: &str) -> Failure {
    let path = path.to_string_lossy();
    let remedy = "name the file with --config or PAPAYAD_CONFIG";
    Failure::new(Exit::Config, format!("cannot read {}: {why}; {remedy}", visible(&path)))
}
