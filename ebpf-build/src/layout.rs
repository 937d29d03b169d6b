//! Where the object is built, so that build scripts and xtask share one build of it.

use std::path::{Path, PathBuf};

use crate::TARGET;

/// The programs' own target directory under the workspace's: the outer cargo holds the lock of its
/// target directory while build scripts run, so a nested cargo in the same one would wait for ever.
pub fn target_dir(target_root: &Path) -> PathBuf {
    target_root.join("ebpf")
}

/// A package's object in the programs' target directory.
pub fn object(target_dir: &Path, package: &str) -> PathBuf {
    target_dir.join(TARGET).join("release").join(package)
}

/// The workspace's target directory, told from a build script's `OUT_DIR`
/// (`<root>[/<triple>]/<profile>/build/<package>-<hash>/out`); `None` where the layout is another one.
pub fn target_root_of(out_dir: &Path, triple: &str) -> Option<PathBuf> {
    let build = out_dir.ancestors().find(|path| path.file_name().is_some_and(|name| name == "build"))?;
    let root = build.parent()?.parent()?;
    let root = if root.file_name().is_some_and(|name| name == triple) { root.parent()? } else { root };
    Some(root.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "x86_64-unknown-linux-gnu";

    #[test]
    fn target_root_with_and_without_a_triple() {
        for out_dir in [
            "/src/build/x/target/debug/build/overlay-user-0123/out",
            "/src/build/x/target/x86_64-unknown-linux-gnu/release/build/overlay-user-0123/out",
        ] {
            let root = target_root_of(Path::new(out_dir), HOST).unwrap();
            assert_eq!(root, Path::new("/src/build/x/target"), "{out_dir}");
        }
        assert_eq!(target_root_of(Path::new("/elsewhere/out"), HOST), None);
    }

    #[test]
    fn the_object_lies_in_a_target_directory_of_its_own() {
        let path = object(&target_dir(Path::new("/t")), crate::PACKAGE);
        assert_eq!(path, Path::new("/t/ebpf/bpfel-unknown-none/release/overlay-ebpf"));
    }
}
