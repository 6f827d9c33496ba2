//! What the agent does before it observes, and what it gives up then.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};

use super::{
    config::Config,
    incidents,
    kubernetes::{Cluster, ClusterMaterial},
    log,
    material::Material,
    otlp, privileges, sandbox,
    serving::messages::Start,
};
use crate::{inspect::container::pods::Pods, watch::Watch};

/// Takes the address.
pub(super) fn bind(config: &Config) -> Result<TcpListener> {
    TcpListener::bind(config.listen).with_context(|| {
        format!(
            "cannot listen on {}: set `listen` to another address",
            config.listen
        )
    })
}

/// Makes the folder of incidents, so that reading it can be allowed.
pub(super) fn make_folder(config: &Config) {
    let dir = &config.incidents.dir;
    match sandbox::make_folder(dir) {
        Ok(()) => incidents::protect(dir),
        Err(error) => log(&format!(
            "the folder of incidents {} cannot be made: {error}",
            dir.display()
        )),
    }
}

/// Gives up what is not needed from now on: capabilities, and calls.
pub(super) fn restrict(config: &Config) -> Result<()> {
    privileges::drop_to_needed(&config.privileges.keep)
        .context("cannot drop the capabilities that are not needed")?;
    if config.privileges.sandbox {
        sandbox::observing()
            .context("cannot give up system calls: privileges.sandbox = false leaves them")?;
    }
    Ok(())
}

/// The pods that containers are completed from, where the cluster is asked for them.
pub(super) fn pods(start: &Start, watch: &mut Watch) -> Arc<Pods> {
    let pods = Arc::new(Pods::default());
    if start
        .cluster
        .as_ref()
        .is_some_and(|cluster| cluster.workloads)
    {
        watch.set_pods(Arc::clone(&pods));
    }
    pods
}

/// What the process that serves HTTP has to know.
pub(super) fn start(config: &Config) -> Result<Start> {
    let cluster = ClusterMaterial::read(&config.kubernetes)?;
    if let Some(cluster) = &cluster {
        Cluster::open(cluster)?;
    }
    Ok(Start {
        material: material(config)?,
        readable: config
            .privileges
            .sandbox
            .then(|| readable(config, cluster.is_some())),
        records: config.otlp.queue,
        since_ns: otlp::now_ns(),
        cluster,
    })
}

/// The folders that it reads.
fn readable(config: &Config, in_cluster: bool) -> Vec<PathBuf> {
    // The token is replaced there.
    let token = config.kubernetes.token_file.parent();
    let token = token.filter(|_| in_cluster).map(Path::to_owned);
    token
        .into_iter()
        .chain([config.incidents.dir.clone()])
        .collect()
}

/// What the files of a configuration hold, if all of it can be used.
pub(super) fn material(config: &Config) -> Result<Material> {
    let material = Material::read(config)?;
    material.open()?;
    Ok(material)
}

/// Checks all that can be checked without observing.
///
/// # Errors
/// What [`super::run`] would fail with.
pub fn check(config: &Config) -> Result<()> {
    start(config).map(drop)
}
