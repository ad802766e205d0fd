//! Which data folder a command is about.

use std::path::PathBuf;

use super::{CONFIG, Failure};
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub struct FolderArgs {
    /// The configuration that names the data folder
    #[arg(long, value_name = "FILE", required_unless_present = "data_dir")]
    pub config: Option<PathBuf>,
    /// The data folder itself
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub data_dir: Option<PathBuf>,
}

impl FolderArgs {
    /// The folder, and the configuration that names it if one does. Secrets are not read: who looks into a
    /// folder need not have them.
    pub fn find(&self) -> Result<(PathBuf, Option<Config>), Failure> {
        let load = |path: &PathBuf| Config::load_without_secrets(path);
        let loaded = self.config.as_ref().map(load).transpose();
        let config =
            loaded.map_err(|invalid| Failure::new(CONFIG, invalid.to_string()))?.map(|(config, _)| config);
        match (&self.data_dir, &config) {
            (Some(dir), _) => Ok((dir.clone(), config)),
            (None, Some(found)) => Ok((found.gateway.data_dir.clone(), config)),
            (None, None) => Err(Failure::new(CONFIG, "name --config or --data-dir")),
        }
    }
}
