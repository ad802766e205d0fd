//! The keys of an archive's chain: Ed25519, as the PEM that other tools read and write (RFC 8410).

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const PRIVATE: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";
/// What precedes the 32 bytes of a public key in its SubjectPublicKeyInfo.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Signs. Never printed.
#[derive(Clone)]
pub struct SigningKey(Arc<Ed25519KeyPair>);

impl SigningKey {
    /// A new key and its PEM, which is the secret.
    ///
    /// # Errors
    /// The machine has no randomness.
    pub fn generate() -> Result<(Self, String), String> {
        let failed = |_| "the cryptographic library made no key".to_owned();
        let pair = Ed25519KeyPair::generate().map_err(failed)?;
        let pem = pem(PRIVATE, pair.to_pkcs8v1().map_err(failed)?.as_ref());
        Ok((Self(Arc::new(pair)), pem))
    }

    /// # Errors
    /// What to do about a text that is no such key.
    pub fn from_pem(text: &[u8]) -> Result<Self, String> {
        let hint = "Put the PEM of an Ed25519 key there, as `penstock archive keygen` makes it";
        let der = der(PRIVATE, text).ok_or_else(|| format!("{hint}: this is no \"{PRIVATE}\"."))?;
        let pair = Ed25519KeyPair::from_pkcs8(&der);
        pair.map(|pair| Self(Arc::new(pair))).map_err(|_| format!("{hint}: this is another kind of key."))
    }

    pub fn public(&self) -> PublicKey {
        // Of an Ed25519 pair it has 32 bytes.
        PublicKey(self.0.public_key().as_ref().try_into().unwrap_or_default())
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.public() == other.public()
    }
}

impl Eq for SigningKey {}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

/// Tells whether a [`SigningKey`] signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// # Errors
    /// What to do about a text that is no such key.
    pub fn from_pem(text: &[u8]) -> Result<Self, String> {
        let found = der(PUBLIC, text);
        let key =
            found.as_deref().and_then(|der| der.strip_prefix(&SPKI)).and_then(|key| key.try_into().ok());
        key.map(Self).ok_or_else(|| {
            format!("Give the \"{PUBLIC}\" that `penstock archive keygen` made: this is no such PEM.")
        })
    }

    pub fn to_pem(self) -> String {
        pem(PUBLIC, &[&SPKI[..], &self.0[..]].concat())
    }

    /// Half of the key's SHA-256 in hex: names it in a chain.
    pub fn id(self) -> String {
        digest(&SHA256, &self.0).as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn signed(self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

/// Both documents are short enough for one line.
fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// The document of that label in a PEM, whatever stands around it.
fn der(label: &str, text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    STANDARD.decode(body.split_ascii_whitespace().collect::<String>()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_pem_and_signs_for_its_public_half_alone() {
        let (key, pem) = SigningKey::generate().unwrap();
        let again = SigningKey::from_pem(pem.as_bytes()).unwrap();
        assert_eq!(again.public(), key.public());
        let public = PublicKey::from_pem(key.public().to_pem().as_bytes()).unwrap();
        assert_eq!(public.id().len(), 32);
        let signature = again.sign(b"link");
        assert!(public.signed(b"link", &signature));
        assert!(!public.signed(b"Link", &signature));
        assert!(!public.signed(b"link", &signature[..63]));
        let (other, _) = SigningKey::generate().unwrap();
        assert!(!other.public().signed(b"link", &signature));
    }

    /// From RFC 8410, section 10.
    #[test]
    fn keys_of_other_tools_are_read() {
        let private = "-----BEGIN PRIVATE KEY-----\n\
                       MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                       -----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\n\
                      MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                      -----END PUBLIC KEY-----\n";
        let key = SigningKey::from_pem(private.as_bytes()).unwrap();
        assert_eq!(key.public().to_pem(), public);
    }

    #[test]
    fn what_is_no_key_is_refused_with_what_to_do_and_without_what_was_found() {
        let (key, pem) = SigningKey::generate().unwrap();
        let cut = &pem[..60];
        for text in ["", "hush", "-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----", cut] {
            let told = SigningKey::from_pem(text.as_bytes()).unwrap_err();
            assert!(told.contains("penstock archive keygen") && !told.contains("hush"), "{told}");
        }
        assert!(SigningKey::from_pem(key.public().to_pem().as_bytes()).is_err());
        assert!(PublicKey::from_pem(pem.as_bytes()).is_err());
        assert!(!format!("{key:?}").contains(pem.lines().nth(1).unwrap()));
    }
}
