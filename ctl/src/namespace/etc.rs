//! The /etc of a node: the host's, but for the files that speak of the network.
//!
//! A mount on one file would not last: when the host renames a new file over the one below, the kernel takes the mount
//! away, and the node would see the host's name servers. So /etc as a directory is ours: an overlay, whose upper layer
//! holds our files; where the kernel refuses one (part of the host's /etc is a mount of its own, as in containers), a tmpfs
//! with links to the host's files.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::mount::{Stage, bind_tree};
use crate::api::types::EtcFiles;
use crate::paths::NODE_MARK;

/// Where the host's /etc lies inside a tmpfs /etc.
const HOST_TREE: &str = "/etc/.host";

/// How big our layer of /etc may grow.
const LAYER: &str = "mode=755,size=16m";

/// Gives this mount namespace an /etc of its own, with `files` and the mark of node `id` in it.
pub fn install(stage: &Stage, files: &EtcFiles, id: &str) -> io::Result<()> {
    let own = own_files(files, id, &fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default());
    if overlay(stage, &own).is_ok() {
        return Ok(());
    }
    links(stage, &own)
}

/// Our files by name.
fn own_files(files: &EtcFiles, id: &str, nsswitch: &str) -> [(&'static str, String); 5] {
    let mark = NODE_MARK.trim_start_matches("/etc/");
    [
        ("resolv.conf", files.resolv_conf.clone()),
        ("hosts", files.hosts.clone()),
        ("hostname", files.hostname.clone()),
        ("nsswitch.conf", hosts_by_dns(nsswitch)),
        (mark, format!("{id}\n")),
    ]
}

/// The name service switch of the host, but with hosts looked up in /etc/hosts and by DNS only: modules such as `resolve`
/// or `mdns` would ask services of the host.
fn hosts_by_dns(nsswitch: &str) -> String {
    let others = nsswitch.lines().filter(|line| !line.trim_start().starts_with("hosts:"));
    let mut text: String = others.map(|line| format!("{line}\n")).collect();
    if text.is_empty() {
        text.push_str("passwd: files\ngroup: files\nshadow: files\n");
    }
    text.push_str("hosts: files dns\n");
    text
}

fn write_all(dir: &Path, own: &[(&'static str, String)]) -> io::Result<()> {
    own.iter().try_for_each(|(name, text)| fs::write(dir.join(name), text))
}

fn overlay(stage: &Stage, own: &[(&'static str, String)]) -> io::Result<()> {
    // A layer of its own, so that the node cannot fill the store room, nor the store room hide the layer when it goes.
    let layer = stage.dir("layer")?;
    mount(
        Some("portolan"),
        &layer,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(LAYER),
    )?;
    let (upper, work) = (layer.join("upper"), layer.join("work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    write_all(&upper, own)?;
    let options =
        format!("lowerdir=/etc,upperdir={},workdir={},userxattr", upper.display(), work.display());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("portolan"), "/etc", Some("overlay"), flags, Some(options.as_str()))?)
}

fn links(stage: &Stage, own: &[(&'static str, String)]) -> io::Result<()> {
    let (etc, host) = (Path::new("/etc"), Path::new(HOST_TREE));
    let aside = stage.dir("etc")?;
    bind_tree(etc, &aside)?;
    mount(
        Some("portolan"),
        etc,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(LAYER),
    )?;
    fs::create_dir(host)?;
    bind_tree(&aside, host)?;
    for entry in fs::read_dir(host)? {
        let entry = entry?;
        let name = entry.file_name();
        if own.iter().any(|(ours, _)| *ours == name) {
            continue;
        }
        let kind = entry.file_type()?;
        let here = etc.join(&name);
        if kind.is_symlink() {
            // Its text is right where it stood: in /etc.
            symlink(fs::read_link(entry.path())?, &here)?;
        } else if kind.is_dir() {
            // A directory is bound, not linked, so that relative links inside it find their way up.
            fs::create_dir(&here)?;
            bind_tree(&entry.path(), &here)?;
        } else {
            symlink(Path::new(".host").join(&name), &here)?;
        }
    }
    write_all(etc, own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_looked_up_in_files_and_dns_only() {
        let host =
            "passwd: files systemd\n hosts: files resolve [!UNAVAIL=return] dns\nnetworks: files\n";
        assert_eq!(
            hosts_by_dns(host),
            "passwd: files systemd\nnetworks: files\nhosts: files dns\n"
        );
    }

    #[test]
    fn a_host_without_a_switch_gets_a_plain_one() {
        assert_eq!(
            hosts_by_dns(""),
            "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"
        );
    }

    #[test]
    fn the_mark_names_the_node() {
        let own = own_files(&EtcFiles::default(), "abc", "");
        assert_eq!(own[4], ("portolan-node", "abc\n".to_string()));
    }
}
