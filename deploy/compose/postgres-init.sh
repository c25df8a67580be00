#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs once, when the database is made: the service's own role, which owns its own database and nothing else. psql reads
# the password itself, so it stands in no command line.
set -eu
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\set password `cat /run/secrets/pqreg_password`
CREATE ROLE pqreg LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD :'password';
CREATE DATABASE pqreg OWNER pqreg TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
REVOKE ALL ON DATABASE pqreg FROM PUBLIC;
SQL
