//! Serves a cluster without networks on `127.0.0.1:16443`, to try clients by hand.

#[path = "../tests/support/cluster.rs"]
mod cluster;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:16443")?;
    let cluster = cluster::Cluster::start(listener, 3);
    let path = std::env::temp_dir().join("simulated.kubeconfig");
    sim_api::write_kubeconfig(&path, "simulated", &cluster.server.url())?;
    println!("KUBECONFIG={}", path.display());
    std::future::pending::<()>().await;
    Ok(())
}
