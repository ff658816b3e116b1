#!/usr/bin/env bash
#
# Makes the TLS test files in this folder afresh: a throw-away test CA, a server
# certificate signed by it, and a key that does not fit the certificate.
# See README.md.
#
# Needs openssl 3.x or 1.1.1; OPENSSL=... names another than the first in PATH.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
certs=$PWD
openssl=${OPENSSL:-openssl}

# Everything is made in a temporary directory and moved out only at the end, so
# that a failure half-way leaves the old files, which fit each other. The key of
# the CA never leaves it: nobody can mint more certificates from a CA somebody
# trusted by mistake.
umask 077
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"

# Ten years have at most 3 leap days. The CA gets one day more, so that it is
# never the one to expire first.
days=3653

# Not the system's openssl.cnf: its extensions differ from system to system.
cat >openssl.cnf <<'EOF'
[req]
prompt = no
distinguished_name = ca_name
x509_extensions = ca

[ca_name]
CN = Switchboard test CA

[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always

[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
EOF

# genpkey, not ecparam: it writes PKCS#8 ("BEGIN PRIVATE KEY").
new_key() {
    "$openssl" genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 \
        -pkeyopt ec_param_enc:named_curve -out "$1"
}
new_key ca.key
new_key server.key
new_key other.key

"$openssl" req -new -x509 -config openssl.cnf -key ca.key -sha256 \
    -days $((days + 1)) -out ca.pem

"$openssl" req -new -config openssl.cnf -subj /CN=localhost -key server.key \
    -sha256 -out server.csr
"$openssl" x509 -req -in server.csr -CA ca.pem -CAkey ca.key \
    -CAcreateserial -CAserial ca.srl -extfile openssl.cnf -extensions server \
    -sha256 -days "$days" -out leaf.pem
cat leaf.pem ca.pem >server.pem

# 3DES and a SHA-1 MAC, stated because the defaults differ: OpenSSL 1.1.1's
# (RC2) needs the legacy provider of OpenSSL 3, and OpenSSL 3's (AES, SHA-256
# MAC) is "wrong password" to many a macOS and to old Windows. All of them
# should read this one, and there is no secret in it to protect.
echo switchboard >server.p12.password
"$openssl" pkcs12 -export -name switchboard -inkey server.key -in leaf.pem \
    -certfile ca.pem -passout file:server.p12.password \
    -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1 -out server.p12

"$openssl" verify -x509_strict -purpose sslserver -CAfile ca.pem server.pem

# The README says until when the certificate is valid.
until=$("$openssl" x509 -in leaf.pem -noout -enddate)
sed "s/^Valid until:.*/Valid until: ${until#notAfter=}/" "$certs/README.md" >README.md

# World-readable, like every file git checks out: there are no secrets here, and
# a server under test may run as another user.
install -m 644 ca.pem server.pem server.key server.p12 server.p12.password \
    other.key README.md "$certs"
