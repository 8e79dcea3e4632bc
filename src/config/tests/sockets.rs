//! TLS, and the Unix domain socket.

use super::*;

#[test]
fn a_certificate_and_its_key_come_together() {
    let (cert, key, ca) = (("tls_cert", "/cert"), ("tls_key", "/key"), ("tls_client_ca", "/ca"));
    let config = flag(&[cert, key, ca]).loaded().config;
    assert_eq!(config.tls_cert.as_deref(), Some(Path::new("/cert")));
    assert_eq!(config.tls_key.as_deref(), Some(Path::new("/key")));
    assert_eq!(config.tls_client_ca.as_deref(), Some(Path::new("/ca")));
    assert_eq!(
        flag(&[cert]).error(),
        "tls_key: expected the file of the private key of tls_cert, got none (default)"
    );
    assert_eq!(
        file("tls_key = \"/key\"").error(),
        "tls_cert: expected the file of the certificate of tls_key, got none (default)"
    );
    assert_eq!(
        flag(&[ca]).error(),
        "tls_client_ca: expected none without tls_cert and tls_key, got one (flag --tls-client-ca)"
    );
}

#[test]
fn the_mode_of_the_socket_is_octal() {
    for (typed, mode) in [("0600", 0o600), ("660", 0o660), ("0777", 0o777), ("000", 0)] {
        assert_eq!(flag(&[("unix_mode", typed)]).loaded().config.unix_mode, FileMode(mode), "{typed}");
    }
    for wrong in ["", "6", "0o600", "+600", "0800", "1777", "00600", "rw-"] {
        assert_eq!(
            flag(&[("unix_mode", wrong)]).error(),
            format!(
                "unix_mode: expected permissions in octal such as `\"0660\"`, got `{wrong}` (flag --unix-mode)"
            )
        );
    }
    // In a file a number would be read as decimal.
    let error = file("unix_mode = 600").error();
    assert!(error.contains("such as `\"0660\"`, got `600`"), "{error}");
}

#[test]
fn the_users_of_the_socket_are_a_list_of_ids() {
    let users = |typed| flag(&[("unix_uids", typed)]).loaded().config.unix_uids;
    assert_eq!(users("own"), UserList::Own);
    assert_eq!(users("0"), UserList::Listed(vec![0]));
    assert_eq!(users("1000, 0,4294967294"), UserList::Listed(vec![1000, 0, 4_294_967_294]));
    for wrong in ["", "root", "-1", "1,", "1 2", "4294967296"] {
        let error = flag(&[("unix_uids", wrong)]).error();
        assert!(
            error.contains("expected `own`, or ids of users such as `\"0,1000\"` (in the file"),
            "{error}"
        );
    }
}

#[test]
fn the_users_of_the_socket_may_be_an_array_in_the_file() {
    let users = |value: &str| file(&format!("unix_uids = {value}")).loaded().config.unix_uids;
    assert_eq!(users("[\"own\"]"), UserList::Own);
    for both in ["[0, 1000]", "[\"0\", 1000]", "\"0,1000\""] {
        assert_eq!(users(both), UserList::Listed(vec![0, 1000]), "{both}");
    }
    for (wrong, got) in [("[]", "a list"), ("[true]", "a list"), ("[-1]", "a list"), ("0", "`0`")] {
        let error = file(&format!("unix_uids = {wrong}")).error();
        assert!(error.ends_with(&format!("got {got} (file /etc/gateway.toml)")), "{error}");
    }
    assert!(file("unix_mode = [\"0600\"]").error().contains("got a list"));
}
