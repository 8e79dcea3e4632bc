use gateway::client::{Client, ClientError, Event, Identify, Lease, Revoke};
use gateway::protocol::close::LEAVES_FOR_GOOD;
use gateway::protocol::op::{LeaseState, Opcode};

/// Here your Discord library connects, and comes back at READY. (What takes longer than a few seconds
/// goes into a task of its own: `next` answers the gateway's pings.)
async fn connect_shard(lease: &Lease) {
    println!("connecting shard {} of {}", lease.shard_id, lease.shard_count);
}

async fn shard_service(url: &str) -> Result<(), ClientError> {
    let (mut gateway, _) = Client::connect(url, &Identify::named("shard-rs")).await?;
    gateway.shard_connect().await?;
    let mut held = None; // the shard that it holds
    while let Some(event) = gateway.next().await? {
        match event {
            Event::Op(op) if op.is(Opcode::ShardAccept) => {
                let lease: Lease = op.read()?;
                held = Some((lease.shard_id, lease.shard_count));
                gateway.shard_state(&lease, LeaseState::Identifying).await?;
                connect_shard(&lease).await;
                gateway.shard_state(&lease, LeaseState::Ready).await?;
            }
            Event::Op(op) if op.is(Opcode::Shutdown) => gateway.close(LEAVES_FOR_GOOD).await?,
            Event::Op(op) if op.is(Opcode::ShardRevoke) => {
                let lost: Revoke = op.read()?;
                if held == Some((lost.shard_id, lost.shard_count)) {
                    gateway.close(LEAVES_FOR_GOOD).await?; // once the shard is closed
                }
            }
            _ => {} // SHARD_WAIT, or a message of another service
        }
    }
    Ok(())
}
