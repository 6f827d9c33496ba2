//! The chart, with the real Helm and the schemas of three releases of Kubernetes, and what it configures.

use std::{fs, path::Path, process::Command};

use crate::{
    agent::needs,
    harness::{OBSERVER, Skip, TempDir, name, together},
};

#[test]
fn is_rendered_and_valid() {
    together(name!(), || {
        needs("python3")?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let packages = root.join(".tools/python");
        if !packages.join("kubernetes_validate").is_dir() {
            return Err(Skip(
                "no helm-python-sdk: `cargo xtask test` fetches it".into(),
            ));
        }
        let folder = TempDir::new();
        let out = Command::new("python3")
            .arg(root.join("deploy/helm/render.py"))
            .arg(folder.path())
            .env("PYTHONPATH", packages)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{said}{errors}");
        assert!(said.contains("everything: 13 objects"), "{said}");
        // What the chart configures is what the agent takes.
        for way in ["defaults", "little"] {
            let file = folder.path().join(format!("{way}.toml"));
            let out = Command::new(OBSERVER)
                .args(["agent", "--check-config", "--config"])
                .arg(&file)
                .output()
                .unwrap();
            let text = fs::read_to_string(file).unwrap();
            assert!(
                out.status.success(),
                "{text}\n{}",
                String::from_utf8_lossy(&out.stderr)
            );
        }
        Ok(())
    });
}
