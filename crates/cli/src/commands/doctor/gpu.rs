//! GPUs, as far as files tell: no driver is loaded, since a broken one could end the process.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::host::{field, read};

/// Where libraries lie when no configuration of the loader names their folder.
const LIBRARY_FOLDERS: [&str; 9] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/cuda/lib64",
    "/usr/local/nvidia/lib64",
    "/usr/lib/wsl/lib",
    "/run/opengl-driver/lib",
];
/// Where Vulkan drivers announce themselves.
const VULKAN_FOLDERS: [&str; 3] = [
    "/usr/share/vulkan/icd.d",
    "/usr/local/share/vulkan/icd.d",
    "/etc/vulkan/icd.d",
];

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Gpu {
    /// Version line of the kernel's NVIDIA driver.
    pub(super) nvidia_driver: Option<String>,
    /// Names of NVIDIA cards.
    pub(super) nvidia_gpus: Vec<String>,
    /// The driver's library.
    pub(super) libcuda: Option<PathBuf>,
    /// The compiler that the CUDA backend needs.
    pub(super) libnvrtc: Option<PathBuf>,
    /// The Vulkan loader.
    pub(super) vulkan_loader: Option<PathBuf>,
    /// Descriptions of Vulkan drivers.
    pub(super) vulkan_drivers: Vec<PathBuf>,
}

impl Gpu {
    pub(super) fn look() -> Self {
        let folders = library_folders();
        let library = |stem: &str| find_library(&folders, stem);
        let driver = read("/proc/driver/nvidia/version");
        let cards = entries(Path::new("/proc/driver/nvidia/gpus"));
        Self {
            nvidia_driver: driver.and_then(|text| text.lines().next().map(str::to_owned)),
            nvidia_gpus: cards.iter().filter_map(|card| model(card)).collect(),
            libcuda: library("libcuda.so"),
            libnvrtc: library("libnvrtc.so"),
            vulkan_loader: library("libvulkan.so"),
            vulkan_drivers: vulkan_drivers(),
        }
    }

    /// Whether a Vulkan device can be expected.
    pub(super) fn has_vulkan(&self) -> bool {
        self.vulkan_loader.is_some() && !self.vulkan_drivers.is_empty()
    }
}

fn model(card: &Path) -> Option<String> {
    let information = std::fs::read_to_string(card.join("information")).ok()?;
    field(&information, "Model")
}

/// Folders in which the dynamic loader searches.
fn library_folders() -> Vec<PathBuf> {
    let from_env = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&from_env).collect();
    for file in entries(Path::new("/etc/ld.so.conf.d")) {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        folders.extend(
            text.lines()
                .filter(|line| line.starts_with('/'))
                .map(PathBuf::from),
        );
    }
    folders.extend(LIBRARY_FOLDERS.map(PathBuf::from));
    folders
}

/// The first file `stem` or `stem.VERSION`.
fn find_library(folders: &[PathBuf], stem: &str) -> Option<PathBuf> {
    let is_it = |path: &PathBuf| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.strip_prefix(stem)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    folders
        .iter()
        .filter(|folder| !folder.as_os_str().is_empty())
        .find_map(|folder| entries(folder).into_iter().find(is_it))
}

fn vulkan_drivers() -> Vec<PathBuf> {
    // The loader's own variables replace its search.
    for name in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        if let Some(files) = std::env::var_os(name).filter(|value| !value.is_empty()) {
            return std::env::split_paths(&files)
                .filter(|path| path.exists())
                .collect();
        }
    }
    VULKAN_FOLDERS
        .iter()
        .flat_map(|folder| entries(Path::new(folder)))
        .collect()
}

/// Paths in a folder, sorted; none where it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn libraries_are_found_with_and_without_version() {
        let dir = tempfile::tempdir().unwrap();
        let folders = [dir.path().join("none"), dir.path().to_path_buf()];
        assert_eq!(find_library(&folders, "libcuda.so"), None);
        std::fs::write(dir.path().join("libcuda.sound"), "").unwrap();
        assert_eq!(find_library(&folders, "libcuda.so"), None);
        let path = dir.path().join("libcuda.so.1");
        std::fs::write(&path, "").unwrap();
        assert_eq!(find_library(&folders, "libcuda.so"), Some(path));
    }
}
