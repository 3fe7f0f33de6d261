//! Sections 2.4 and 2.5: sessions, updates and ends.

use super::*;

const ID: &str = "1251000001.room_1";

fn cancelled(output: Value) -> Value {
    let mut body = body(
        vec![],
        json!({"input_stream_list": null, "output_stream_id": output}),
    );
    body["interface"]["para"]["interface"] = json!("mix_streamv2.cancel_mix_stream");
    body
}

fn running() -> Facts {
    let mut facts = facts();
    facts.mixes = vec![mix(ID, OUTPUT)];
    facts
}

fn single(id: &str) -> Vec<Value> {
    vec![input(id, 1, json!({}))]
}

#[test]
fn section_2_4_type_1_is_a_stream_of_its_own_and_type_0_one_of_the_inputs() {
    let new = json!({"output_stream_type": 1, "output_stream_id": "8888_MIX_a_2_1490079362"});
    assert_eq!(
        scene(pair(), new)["output"]["stream"],
        "8888_MIX_a_2_1490079362"
    );
    assert_eq!(scene(pair(), json!({}))["output"]["stream"], OUTPUT);
    assert_eq!(
        scene(pair(), json!({"output_stream_type": 0}))["output"]["stream"],
        OUTPUT
    );
}

#[test]
fn section_2_5_the_same_session_is_updated_in_place() {
    let asked = body(pair(), json!({}));
    for facts in [facts(), running()] {
        let Ok(Plan::Mix { id, wait, .. }) = judge_with(&asked, &facts) else {
            panic!();
        };
        assert_eq!((id.as_str(), wait), (ID, false));
    }
    // The output of a running type 1 is published, by the session itself.
    let new = json!({"output_stream_type": 1, "output_stream_id": "8888_new"});
    let mut facts = facts();
    facts.streams.insert("8888_new".into(), Stream::default());
    facts.mixes = vec![mix(ID, "8888_new")];
    assert!(judge_with(&body(pair(), new), &facts).is_ok());
}

#[test]
fn section_2_5_one_input_ends_the_mix_and_is_well_when_there_is_none() {
    let asked = body(single(OUTPUT), json!({}));
    let stop = Plan::Stop { id: ID.into() };
    assert_eq!(judge_with(&asked, &running()), Ok(stop.clone()));
    // Clients send it on every leave, and when a room is made, before anything is published.
    assert_eq!(judge_with(&asked, &facts()), Ok(Plan::Nothing));
    assert_eq!(judge_with(&asked, &Facts::default()), Ok(Plan::Nothing));
    // An older demo names a type 1 mix's own output.
    let demo = body(
        single("8888_user_0"),
        json!({"output_stream_id": "8888_user_0", "output_stream_type": 1}),
    );
    let mut facts = facts();
    facts.mixes = vec![mix(ID, "8888_user_0")];
    assert_eq!(judge_with(&demo, &facts), Ok(stop));
    facts.mixes.clear();
    assert_eq!(judge_with(&demo, &facts), Ok(Plan::Nothing));
}

#[test]
fn section_2_5_one_input_ends_no_other_session_s_mix() {
    let asked = body(single(OUTPUT), json!({}));
    let mut facts = facts();
    facts.mixes = vec![mix("1251000001.room_2", OUTPUT)];
    assert_eq!(judge_with(&asked, &facts).unwrap_err().code.number(), -300);
    facts.mixes = vec![mix(ID, "8888_c")];
    assert_eq!(judge_with(&asked, &facts).unwrap_err().code.number(), -508);
}

#[test]
fn section_2_5_cancel_names_the_session_and_its_output() {
    let stop = Ok(Plan::Stop { id: ID.into() });
    assert_eq!(judge_with(&cancelled(json!(OUTPUT)), &running()), stop);
    assert_eq!(judge_with(&cancelled(json!(null)), &running()), stop);
    for (facts, output, code) in [(facts(), OUTPUT, -30_300), (running(), "8888_c", -31_003)] {
        let refusal = judge_with(&cancelled(json!(output)), &facts).unwrap_err();
        assert_eq!(refusal.code.number(), code);
    }
}

#[test]
fn section_2_5_a_mix_that_is_ending_is_gone_for_callers_and_waited_for_by_the_next() {
    let mut facts = running();
    facts.mixes[0].ending = true;
    let again = judge_with(&cancelled(json!(OUTPUT)), &facts).unwrap_err();
    assert_eq!(again.code.number(), -30_300);
    let single = body(single(OUTPUT), json!({}));
    assert_eq!(judge_with(&single, &facts), Ok(Plan::Nothing));
    // At once again, under the same session and under another.
    for session in ["room_1", "room_2"] {
        let asked = body(pair(), json!({"mix_stream_session_id": session}));
        match judge_with(&asked, &facts) {
            Ok(Plan::Mix { wait: true, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn sessions_of_two_accounts_are_two() {
    let asked = body(pair(), json!({}));
    let other = Account {
        appid: 2,
        ..account()
    };
    let Ok(Call::Start(ask)) = legacy::read(asked.to_string().as_bytes()).1 else {
        panic!();
    };
    let refused = start(&other, &pictures(), &ask, &running()).unwrap_err();
    assert_eq!(refused.code, Code::OutputTaken);
    let cancelled = cancel(&other, "room_1", None, &running()).unwrap_err();
    assert_eq!(cancelled.code, Code::NoSession);
}
