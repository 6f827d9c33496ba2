//! `observer usdt list`.

use serde_json::Value;

use crate::{
    harness::{name, output, together},
    shop::{self, Shop},
};

fn listed(target: &str) -> Value {
    let output = output(&["usdt", "list", target, "--format", "json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn probes_of_a_file_and_of_a_process() {
    together(name!(), || {
        let program = shop::program()?.to_str().unwrap();
        let of_file = listed(program);
        let probes = of_file["files"][0]["probes"].as_array().unwrap();
        let names: Vec<&str> = probes.iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert!(
            names.contains(&"wait__start") && names.contains(&"bad__done"),
            "{names:?}"
        );
        let wait = &probes[names
            .iter()
            .position(|name| *name == "wait__start")
            .unwrap()];
        assert_eq!(wait["provider"], "shop");
        assert!(
            wait["semaphore"].is_string() && wait["offset"].is_string(),
            "{wait}"
        );
        assert_eq!(wait["arguments"][0]["text"], "8@%rdi");
        let refused: Vec<&Value> = probes.iter().filter(|p| p["refused"].is_string()).collect();
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert_eq!(refused[0]["name"], "strange");

        let shop = Shop::of_deleted_file()?;
        let of_process = listed(&shop.pid().to_string());
        let files = of_process["files"].as_array().unwrap();
        let file = files.iter().find(|file| file["deleted"] == true).unwrap();
        assert_eq!(file["probes"], of_file["files"][0]["probes"]);
        Ok(())
    });
}

#[test]
fn what_has_none() {
    together(name!(), || {
        for (target, code, word) in [
            ("/dev/null", 1, "no regular file"),
            ("/proc/version", 1, "no ELF file"),
            ("/nowhere", 1, "No such file"),
            ("4194305", 1, "no process 4194305"),
        ] {
            let output = output(&["usdt", "list", target]);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{stderr}");
            assert!(stderr.contains(word), "{stderr}");
        }
        assert_eq!(output(&["usdt", "list"]).status.code(), Some(2));
        Ok(())
    });
}
