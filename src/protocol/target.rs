//! Who a proxied message is for: the second segment of `gateway-proxy:<target>:<topic>`.

use super::name::{ShardId, is_well_formed};

/// A parsed target, borrowed from the message's topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// The service of that name.
    Service(&'a str),
    /// The service that holds that shard id in the current generation.
    Shard(ShardId),
    /// The service that holds the shard to which that guild's events go.
    Guild(u64),
}

impl<'a> Target<'a> {
    /// `None`: not well formed. Ids are plain decimal numbers without sign or leading zeros.
    pub fn parse(text: &'a str) -> Option<Self> {
        if let Some(id) = text.strip_prefix("shard/") {
            return decimal(id)?.try_into().ok().map(|id| Self::Shard(ShardId(id)));
        }
        if let Some(snowflake) = text.strip_prefix("guild/") {
            return decimal(snowflake).map(Self::Guild);
        }
        is_well_formed(text).then_some(Self::Service(text))
    }
}

/// The shard that gets a guild's events: `(guild_id >> 22) % num_shards`, by Discord's
/// documentation on sharding. `shard_count` is at least 1.
pub fn shard_of_guild(snowflake: u64, shard_count: u32) -> ShardId {
    let shard = (snowflake >> 22) % u64::from(shard_count.max(1));
    ShardId(u32::try_from(shard).expect("a remainder is below its u32 divisor"))
}

fn decimal(text: &str) -> Option<u64> {
    let plain = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    plain.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_names_shards_and_guilds() {
        assert_eq!(Target::parse("backend"), Some(Target::Service("backend")));
        assert_eq!(Target::parse("shard/0"), Some(Target::Shard(ShardId(0))));
        assert_eq!(Target::parse("shard/4095"), Some(Target::Shard(ShardId(4095))));
        assert_eq!(Target::parse("guild/81384788765712384"), Some(Target::Guild(81_384_788_765_712_384)));
    }

    #[test]
    fn anything_else_is_not_well_formed() {
        for bad in [
            "",
            "*",
            "#",
            "@group",
            "a b",
            "shard/",
            "shard/-1",
            "shard/+1",
            "shard/01",
            "shard/1/2",
            "shard/4294967296",
            "guild/",
            "guild/x",
            "guild/18446744073709551616",
            "user/1",
        ] {
            assert_eq!(Target::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_guilds_shard_follows_discords_formula() {
        assert_eq!(
            shard_of_guild(81_384_788_765_712_384, 4),
            ShardId(((81_384_788_765_712_384_u64 >> 22) % 4) as u32)
        );
        assert_eq!(shard_of_guild(u64::MAX, 1), ShardId(0));
    }
}
