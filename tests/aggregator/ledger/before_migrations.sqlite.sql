CREATE TABLE devices (
    device VARCHAR(64) NOT NULL,
    state VARCHAR(16) NOT NULL,
    agent VARCHAR(40) NOT NULL,
    runtime VARCHAR(40) NOT NULL,
    at DOUBLE NOT NULL,
    PRIMARY KEY (device)
);
CREATE TABLE events (
    id INTEGER NOT NULL,
    at DOUBLE NOT NULL,
    kind VARCHAR(32) NOT NULL,
    task VARCHAR(32),
    device VARCHAR(64),
    detail TEXT NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE participants (
    task VARCHAR(32) NOT NULL,
    device VARCHAR(64) NOT NULL,
    last_sequence BIGINT NOT NULL,
    last_version BIGINT NOT NULL,
    last_seen DOUBLE NOT NULL,
    accepted BIGINT NOT NULL,
    rejected BIGINT NOT NULL,
    duplicate BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (task, device)
);
CREATE TABLE quality (
    task VARCHAR(32) NOT NULL,
    version BIGINT NOT NULL,
    metric VARCHAR(16) NOT NULL,
    reports BIGINT NOT NULL,
    total DOUBLE NOT NULL,
    PRIMARY KEY (task, version, metric)
);
CREATE TABLE rejections (
    task VARCHAR(32) NOT NULL,
    device VARCHAR(64) NOT NULL,
    sequence BIGINT NOT NULL,
    reason INTEGER NOT NULL,
    at DOUBLE NOT NULL,
    PRIMARY KEY (task, device, sequence)
);
CREATE INDEX rejections_by_device ON rejections (device, reason, at);
CREATE TABLE schema_version (
    version INTEGER NOT NULL,
    PRIMARY KEY (version)
);
CREATE TABLE tallies (
    task VARCHAR(32) NOT NULL,
    kind VARCHAR(16) NOT NULL,
    "key" BIGINT NOT NULL,
    value BIGINT NOT NULL,
    PRIMARY KEY (task, kind, "key")
);
CREATE TABLE tasks (
    task VARCHAR(32) NOT NULL,
    manifest BLOB NOT NULL,
    created_at DOUBLE NOT NULL,
    paused BOOLEAN NOT NULL,
    training JSON NOT NULL,
    codec JSON NOT NULL,
    rule JSON NOT NULL,
    PRIMARY KEY (task)
);
CREATE TABLE updates (
    id INTEGER NOT NULL,
    task VARCHAR(32) NOT NULL,
    device VARCHAR(64) NOT NULL,
    sequence BIGINT NOT NULL,
    base_version BIGINT NOT NULL,
    examples BIGINT NOT NULL,
    payload BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    metrics JSON NOT NULL,
    received_at DOUBLE NOT NULL,
    merged_in BIGINT,
    PRIMARY KEY (id),
    UNIQUE (task, device, sequence),
    FOREIGN KEY(task) REFERENCES tasks (task)
);
CREATE INDEX updates_by_task ON updates (task, id);
CREATE INDEX updates_by_version ON updates (task, merged_in);
CREATE TABLE versions (
    task VARCHAR(32) NOT NULL,
    version BIGINT NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    size_bytes BIGINT NOT NULL,
    rule JSON NOT NULL,
    created_at DOUBLE NOT NULL,
    updates INTEGER NOT NULL,
    staleness_total BIGINT NOT NULL,
    PRIMARY KEY (task, version),
    FOREIGN KEY(task) REFERENCES tasks (task)
);
CREATE INDEX versions_by_blob ON versions (sha256);
INSERT INTO schema_version (version) VALUES (1);
