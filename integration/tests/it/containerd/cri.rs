//! The Container Runtime Interface as a kubelet uses it (package `runtime.v1`): the calls that make and remove a pod, with
//! those of their fields that the tests set or read. Numbers are the interface's.

use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// A sandbox takes a quarter of a second, more on a machine that is busy.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SandboxMetadata {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    #[prost(string, tag = "3")]
    pub(crate) namespace: String,
    #[prost(uint32, tag = "4")]
    pub(crate) attempt: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PortMapping {
    /// 0 is TCP.
    #[prost(int32, tag = "1")]
    pub(crate) protocol: i32,
    #[prost(int32, tag = "2")]
    pub(crate) container_port: i32,
    #[prost(int32, tag = "3")]
    pub(crate) host_port: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxSandboxConfig {
    #[prost(string, tag = "1")]
    pub(crate) cgroup_parent: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SandboxConfig {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<SandboxMetadata>,
    #[prost(string, tag = "2")]
    pub(crate) hostname: String,
    #[prost(string, tag = "3")]
    pub(crate) log_directory: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) port_mappings: Vec<PortMapping>,
    #[prost(btree_map = "string, string", tag = "7")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[prost(message, optional, tag = "8")]
    pub(crate) linux: Option<LinuxSandboxConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RunSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<SandboxConfig>,
}

/// The first field of many requests and replies is an id, and of some nothing else is wanted.
#[derive(Clone, PartialEq, prost::Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct SandboxStatusReply {
    #[prost(message, optional, tag = "1")]
    status: Option<SandboxStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SandboxStatus {
    #[prost(message, optional, tag = "5")]
    network: Option<SandboxNetwork>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SandboxNetwork {
    #[prost(string, tag = "1")]
    ip: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateContainerRequest {
    #[prost(string, tag = "1")]
    sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<SandboxConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<SandboxMetadataName>,
    #[prost(message, optional, tag = "2")]
    image: Option<Id>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(message, optional, tag = "15")]
    linux: Option<Empty>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SandboxMetadataName {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusReply {
    #[prost(message, optional, tag = "1")]
    status: Option<RuntimeStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<Condition>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Condition {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bool, tag = "2")]
    status: bool,
    #[prost(string, tag = "4")]
    message: String,
}

/// A kubelet's end of the socket.
pub(crate) struct Client {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://containerd").timeout(CALL_TIMEOUT);
        let channel = runtime.block_on(endpoint.connect_with_connector(connector))?;
        Ok(Self { runtime, channel })
    }

    fn call<Q, A>(&self, method: &str, request: Q) -> anyhow::Result<A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let path = format!("/runtime.v1.RuntimeService/{method}").parse()?;
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        self.runtime.block_on(async {
            grpc.ready().await?;
            let codec = tonic_prost::ProstCodec::<Q, A>::default();
            let reply = grpc.unary(tonic::Request::new(request), path, codec).await;
            reply
                .map(tonic::Response::into_inner)
                .map_err(|status| anyhow::anyhow!("{method}: {}", status.message()))
        })
    }

    /// Whether the runtime says that its network is ready, which it does once it has a configuration.
    pub(crate) fn network_ready(&self) -> anyhow::Result<()> {
        let reply: StatusReply = self.call("Status", Empty {})?;
        let conditions = reply.status.unwrap_or_default().conditions;
        let network = conditions.iter().find(|c| c.kind == "NetworkReady");
        anyhow::ensure!(network.is_some_and(|c| c.status), "{network:?}");
        Ok(())
    }

    /// Makes a pod; its id.
    pub(crate) fn run_sandbox(&self, config: &SandboxConfig) -> anyhow::Result<String> {
        let request = RunSandboxRequest {
            config: Some(config.clone()),
        };
        self.call::<_, Id>("RunPodSandbox", request).map(|reply| reply.id)
    }

    /// The pod's first address, as a kubelet writes it into the pod's status.
    pub(crate) fn address(&self, sandbox: &str) -> anyhow::Result<std::net::Ipv4Addr> {
        let reply: SandboxStatusReply = self.call(
            "PodSandboxStatus",
            Id {
                id: sandbox.to_owned(),
            },
        )?;
        let network = reply.status.and_then(|s| s.network).unwrap_or_default();
        Ok(network.ip.parse()?)
    }

    /// Starts a container in a pod.
    pub(crate) fn start(
        &self,
        sandbox: &str,
        config: &SandboxConfig,
        image: &str,
        command: &[&str],
    ) -> anyhow::Result<()> {
        let container = ContainerConfig {
            metadata: Some(SandboxMetadataName { name: "main".into() }),
            image: Some(Id { id: image.to_owned() }),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            linux: Some(Empty {}),
        };
        let request = CreateContainerRequest {
            sandbox_id: sandbox.to_owned(),
            config: Some(container),
            sandbox_config: Some(config.clone()),
        };
        let created: Id = self.call("CreateContainer", request)?;
        self.call::<_, Empty>("StartContainer", created).map(drop)
    }

    pub(crate) fn stop(&self, sandbox: &str) -> anyhow::Result<()> {
        self.call::<_, Empty>(
            "StopPodSandbox",
            Id {
                id: sandbox.to_owned(),
            },
        )
        .map(drop)
    }

    pub(crate) fn remove(&self, sandbox: &str) -> anyhow::Result<()> {
        self.call::<_, Empty>(
            "RemovePodSandbox",
            Id {
                id: sandbox.to_owned(),
            },
        )
        .map(drop)
    }
}
