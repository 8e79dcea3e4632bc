//! Events as a Discord bot's shards forward them: raw JSON, in the shapes that Discord documents.

use std::fmt::Write;

/// The events, each one JSON value. A file that `GATEWAY_TEST_EVENTS` names, one event a line, is
/// sent beside our own.
pub(crate) fn events() -> Vec<String> {
    let mut events: Vec<String> = SMALL.iter().map(|event| (*event).to_owned()).collect();
    events.push(guild_create(24));
    events.push(guild_create(60));
    if let Some(path) = std::env::var_os("GATEWAY_TEST_EVENTS") {
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        events.extend(text.lines().map(str::to_owned));
    }
    events
}

const SMALL: [&str; 9] = [
    r#"{"t":"MESSAGE_CREATE","s":42,"op":0,"d":{"id":"1164201840917102653","channel_id":"199737254929760256","author":{"id":"80351110224678912","username":"Nelly","discriminator":"1337","avatar":null},"content":"héllo 漢字 👋🏽 \ud83d\ude00 \"quoted\" \\ \/ tab\t","timestamp":"2023-10-18T13:37:00.123000+00:00","edited_timestamp":null,"tts":false,"mention_everyone":false,"mentions":[],"mention_roles":["103735883630395392"],"attachments":[],"embeds":[{"title":"a","fields":[{"name":"x","value":"1","inline":true}],"color":16711680}],"nonce":"3.0e2","pinned":false,"type":0}}"#,
    r#"{"t":"MESSAGE_CREATE","s":43,"op":0,"d":{"id":1164201840917102654,"content":"","big":123456789012345678901234567890,"negative":-0.0,"exponent":6.02214076E+23,"nested":[[[[[[{"deep":[true,false,null]}]]]]]]}}"#,
    r#"{"t":"MESSAGE_UPDATE","s":44,"op":0,"d":{ "id" : "1164201840917102653" , "content" : "spaces are kept" }}"#,
    r#"{"t":"MESSAGE_REACTION_ADD","s":45,"op":0,"d":{"user_id":"80351110224678912","emoji":{"id":null,"name":"🔥"},"burst":false}}"#,
    r#"{"t":"PRESENCE_UPDATE","s":46,"op":0,"d":{"user":{"id":"80351110224678912"},"status":"dnd","activities":[{"name":"Rocket \"League\"","type":0,"timestamps":{"start":15112000660000}}],"client_status":{"desktop":"dnd"}}}"#,
    r#"{"t":"TYPING_START","s":47,"op":0,"d":{"channel_id":"199737254929760256","timestamp":1697636220}}"#,
    r#"{"t":"INTERACTION_CREATE","s":48,"op":0,"d":{"type":2,"token":"not\u0061secret","data":{"name":"roll","options":[{"name":"sides","type":4,"value":20}]}}}"#,
    r#"{"t":"VOICE_STATE_UPDATE","s":49,"op":0,"d":{"channel_id":null,"self_mute":true,"session_id":"90326bd25d71d39b9ef95b299e3872ff"}}"#,
    r#"{"t":"RESUMED","s":50,"op":0,"d":null}"#,
];

/// A GUILD_CREATE with that many members: from 4 KiB on.
fn guild_create(members: usize) -> String {
    let mut event = String::from(
        r#"{"t":"GUILD_CREATE","s":1,"op":0,"d":{"id":"197038439483310086","name":"Discord Testers — ©","large":true,"channels":[{"id":"199737254929760256","type":0,"name":"général","topic":null,"permission_overwrites":[]}],"members":["#,
    );
    for index in 0..members {
        let comma = if index == 0 { "" } else { "," };
        write!(
            event,
            r#"{comma}{{"user":{{"id":"8035111022467{index:04}","username":"user\u00e9{index}","bot":false}},"nick":"ニック{index}","roles":["1037358836{index:02}"],"joined_at":"2015-04-26T06:26:56.936000+00:00","deaf":false,"flags":0}}"#,
        )
        .unwrap();
    }
    event.push_str("]}}");
    event
}
