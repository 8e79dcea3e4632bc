//! The name in a client certificate.

use asn1::{ObjectIdentifier, Tlv};
use tokio_rustls::rustls::pki_types::CertificateDer;

/// `id-at-commonName` (RFC 5280 appendix A.1).
const COMMON_NAME: ObjectIdentifier = asn1::oid!(2, 5, 4, 3);

/// RFC 5280 section 4.1.2.4.
#[derive(asn1::Asn1Read)]
struct Attribute<'a> {
    kind: ObjectIdentifier,
    value: Tlv<'a>,
}

type RelativeName<'a> = asn1::SetOf<'a, Attribute<'a>>;

/// The subject's common name; `None` where it has none, more than one, or one that is no text.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    in_subject(certificate.subject())
}

/// `subject` is what the sequence of the subject holds.
fn in_subject(subject: &[u8]) -> Option<String> {
    let mut found = None;
    asn1::parse(subject, |parser| {
        while !parser.is_empty() {
            for attribute in parser.read_element::<RelativeName<'_>>()? {
                if attribute.kind == COMMON_NAME && found.replace(text(&attribute.value)).is_some() {
                    return Err(asn1::ParseError::new(asn1::ParseErrorKind::InvalidValue));
                }
            }
        }
        Ok::<_, asn1::ParseError>(())
    })
    .ok()?;
    found.flatten()
}

/// The kinds that RFC 5280 wants to be used.
fn text(value: &Tlv<'_>) -> Option<String> {
    let text = value
        .parse::<asn1::Utf8String<'_>>()
        .map(|text| text.as_str().to_owned())
        .or_else(|_| value.parse::<asn1::PrintableString<'_>>().map(|text| text.as_str().to_owned()));
    text.ok().filter(|text| !text.is_empty() && !text.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A subject of attributes: their kind below `id-at`, their type and their text.
    fn subject(attributes: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let value =
            |kind: u8, bytes: Vec<u8>| [vec![kind, u8::try_from(bytes.len()).unwrap()], bytes].concat();
        let attribute = |&(at, kind, text): &(u8, u8, &[u8])| {
            let oid = value(0x06, vec![0x55, 0x04, at]);
            value(0x31, value(0x30, [oid, value(kind, text.to_vec())].concat()))
        };
        attributes.iter().flat_map(attribute).collect()
    }

    #[test]
    fn the_name_is_the_one_common_name_of_the_subject() {
        let organization = (10, 0x0C, &b"Bots"[..]);
        let name = |attributes: &[_]| in_subject(&subject(attributes));
        assert_eq!(name(&[organization, (3, 0x0C, "schärd".as_bytes())]).as_deref(), Some("schärd"));
        assert_eq!(name(&[(3, 0x13, b"shard-7"), organization]).as_deref(), Some("shard-7"));
        assert_eq!(name(&[organization]), None, "there is none");
        assert_eq!(name(&[]), None, "nor in nothing");
        assert_eq!(name(&[(3, 0x0C, b"a"), (3, 0x0C, b"b")]), None, "of two, none is the name");
        assert_eq!(name(&[(3, 0x02, b"7")]), None, "a number");
        assert_eq!(name(&[(3, 0x0C, b"a\0b")]), None, "a control character");
        assert_eq!(name(&[(3, 0x0C, b"")]), None, "nothing");
        assert_eq!(in_subject(&subject(&[organization])[..4]), None, "cut short");
    }
}
