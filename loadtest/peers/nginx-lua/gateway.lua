-- Verify, log, answer, drop repeats, route, forward. LuaJIT FFI to libcrypto 3, lua-cjson, lua-resty-core.
local ffi = require "ffi"
local bit = require "bit"
local cjson = require "cjson.safe"
local semaphore = require "ngx.semaphore"

local function cdef(text) pcall(ffi.cdef, text) end   -- another library may have declared it
cdef [[ typedef struct evp_md_st EVP_MD; ]]
cdef [[ const EVP_MD *EVP_sha256(void); ]]
cdef [[ unsigned char *HMAC(const EVP_MD *md, const void *key, int key_len,
        const unsigned char *d, size_t n, unsigned char *out, unsigned int *out_len); ]]
cdef [[ int CRYPTO_memcmp(const void *a, const void *b, size_t len); ]]
cdef [[ int open(const char *path, int flags, ...); ]]
cdef [[ ssize_t write(int fd, const void *buf, size_t n); ]]
cdef [[ int fdatasync(int fd); ]]
local crypto = ffi.load("libcrypto.so.3")
local C = ffi.C

local getenv = os.getenv
local SECRETS = {}
for s in (getenv("APP_SECRET") or "test-app-secret"):gmatch("[^,]+") do SECRETS[#SECRETS + 1] = s end
local VERIFY_TOKEN = getenv("VERIFY_TOKEN") or "test-verify-token"
local RUN = getenv("RUN") or "."
local SYNC = getenv("SYNC") == "group"
local TTL = 3600
local SENDERS = 32            -- connections by upstream
local QUEUE_MAX = 100000
local MAX_ATTEMPTS = 8

-- "prefix=url" pairs; the longest matching prefix wins, "*" is the default.
local UPSTREAMS, ROUTES, DEFAULT, LONGEST = {}, {}, nil, 0
local by_url = {}
for prefix, url in (getenv("UPSTREAMS") or "*=http://127.0.0.1:9100/in"):gmatch("([^=,]+)=([^,]+)") do
    local up = by_url[url]
    if not up then
        local host, port, path = url:match("^http://([^:/]+):?(%d*)(/?.*)$")
        assert(host, "UPSTREAMS: only http://host[:port]/path is supported here: " .. url)
        up = { host = host, port = tonumber(port) or 80, queue = {}, head = 1, tail = 0 }
        up.start = "POST " .. (path ~= "" and path or "/") .. " HTTP/1.1\r\nHost: " .. host .. ":" .. up.port ..
            "\r\nContent-Type: application/json\r\nContent-Length: "
        by_url[url] = up
        UPSTREAMS[#UPSTREAMS + 1] = up
    end
    if prefix == "*" then DEFAULT = up else
        ROUTES[prefix] = up
        if #prefix > LONGEST then LONGEST = #prefix end
    end
end
assert(DEFAULT, "UPSTREAMS needs a *=url entry")

local function route(phone)
    if phone then
        for n = math.min(LONGEST, #phone), 1, -1 do
            local up = ROUTES[phone:sub(1, n)]
            if up then return up end
        end
    end
    return DEFAULT
end

-- Signatures. Tables instead of string.format and tonumber: this is half of the request's own work. ----
local mac, mac_len = ffi.new("unsigned char[64]"), ffi.new("unsigned int[1]")
local given, text = ffi.new("unsigned char[32]"), ffi.new("unsigned char[64]")
local sha256 = crypto.EVP_sha256()
local DIGITS = "0123456789abcdef"
local VALUE = ffi.new("int[256]")
for i = 0, 255 do VALUE[i] = -1 end
for i = 0, 15 do
    VALUE[DIGITS:byte(i + 1)] = i
    VALUE[DIGITS:upper():byte(i + 1)] = i
end

local function hmac(secret, body)
    crypto.HMAC(sha256, secret, #secret, body, #body, mac, mac_len)
end

local function signature(body)
    hmac(SECRETS[1], body)
    for i = 0, 31 do
        text[2 * i] = DIGITS:byte(bit.rshift(mac[i], 4) + 1)
        text[2 * i + 1] = DIGITS:byte(bit.band(mac[i], 15) + 1)
    end
    return ffi.string(text, 64)
end

-- Which secret signed; nil: none.
local function signer(body, header)
    if not header or #header ~= 71 or header:sub(1, 7) ~= "sha256=" then return nil end
    for i = 0, 31 do
        local high, low = VALUE[header:byte(8 + 2 * i)], VALUE[header:byte(9 + 2 * i)]
        if high < 0 or low < 0 then return nil end
        given[i] = high * 16 + low
    end
    local found
    for i = 1, #SECRETS do
        hmac(SECRETS[i], body)
        if crypto.CRYPTO_memcmp(mac, given, 32) == 0 then found = found or i end
    end
    return found
end

-- Logs: one write to a file in append mode, synced for all that wait at once if asked. --------------------
local O_WRONLY, O_CREAT, O_APPEND, O_CLOEXEC = 1, 0x40, 0x400, 0x80000
local function open_log(name)
    local path = RUN .. "/" .. name
    local fd = C.open(path, bit.bor(O_WRONLY, O_CREAT, O_APPEND, O_CLOEXEC), ffi.cast("int", 420))
    assert(fd >= 0, "cannot open " .. path)
    return fd
end
local function append(fd, record) return tonumber(C.write(fd, record, #record)) == #record end

local raw_fd, dead_fd
local batch, batch_ready

-- nginx has no thread to sync in, so the worker stands still for each: the more share one the better.
local function flusher(premature)
    while not premature and not ngx.worker.exiting() do
        if batch_ready:wait(1) then
            ngx.sleep(0)   -- requests that came in the same turn of the loop join
            local full = batch
            batch = { done = semaphore.new(0) }
            full.ok = append(raw_fd, table.concat(full)) and C.fdatasync(raw_fd) == 0
            full.done:post(#full)
        end
    end
end

local function keep(record)
    if not SYNC then return append(raw_fd, record) end
    local own = batch
    own[#own + 1] = record
    if #own == 1 then batch_ready:post(1) end
    return own.done:wait(10) and own.ok
end

-- Forwarding: a queue by upstream, drained by threads that keep a connection each. -------------------------
local function depth()
    local all = 0
    for i = 1, #UPSTREAMS do all = all + UPSTREAMS[i].tail - UPSTREAMS[i].head + 1 end
    return all
end

local function push(job)
    local up = job.up
    up.tail = up.tail + 1
    up.queue[up.tail] = job
    if up.idle > 0 then up.ready:post(1) end
end

local function pop(up)
    if up.head > up.tail then return nil end
    local job = up.queue[up.head]
    up.queue[up.head] = nil
    up.head = up.head + 1
    return job
end

local function dead(job, why)
    append(dead_fd, cjson.encode { key = job.key, attempts = job.attempts, reason = why, body = job.body } .. "\n")
end

-- Status and Retry-After of an answer, or nil and why; the second to last value tells whether to close.
local function exchange(sock, job)
    local sent, err = sock:send { job.up.start, #job.body, "\r\nX-Hub-Signature-256: sha256=", job.sig,
        "\r\nWebhook-Id: ", job.key, "\r\n\r\n", job.body }
    if not sent then return nil, err end
    local line
    line, err = sock:receive("*l")
    if not line then return nil, err end
    local status = tonumber(line:match("^HTTP/1%.%d (%d%d%d)"))
    local length, close, retry_after = nil, false, nil
    while true do
        line, err = sock:receive("*l")
        if not line then return nil, err end
        if line == "" then break end
        local name, value = line:match("^([^:]+):%s*(.-)%s*$")
        name = name and name:lower()
        if name == "content-length" then length = tonumber(value)
        elseif name == "connection" then close = value:lower() == "close"
        elseif name == "retry-after" then retry_after = tonumber(value) end
    end
    if length and length > 0 then sock:receive(length) end
    return status, retry_after, close or (not length and status ~= 204)
end

local function connect(up)
    local sock = ngx.socket.tcp()
    sock:settimeouts(1000, 5000, 5000)
    local ok, err = sock:connect(up.host, up.port)
    return ok and sock, err
end

-- The connection to go on with, or nil.
local function attempt(sock, job)
    job.attempts = job.attempts + 1
    local err, status, retry_after, close
    if not sock then sock, err = connect(job.up) end
    if sock then
        status, retry_after, close = exchange(sock, job)
        if not status then err, retry_after, close = retry_after, nil, true end
        if close then sock:close(); sock = nil end
    else sock = nil end
    if status and status >= 200 and status < 300 then return sock end
    local permanent = status and status >= 400 and status < 500 and status ~= 408 and status ~= 429
    if permanent or job.attempts >= MAX_ATTEMPTS then
        dead(job, err or ("status " .. tostring(status)))
        return sock
    end
    local cap = math.min(30, 0.2 * 2 ^ job.attempts)
    local delay = retry_after and math.min(retry_after, 300) or math.random() * cap   -- full jitter
    local ok = ngx.timer.at(delay, function(premature)
        if premature then dead(job, "shutdown") else push(job) end
    end)
    if not ok then dead(job, "no timer slot") end
    return sock
end

-- A timer's memory is freed when it ends, so each thread hands over to a new one after a while.
local function sender(premature, up)
    local sock
    for _ = 1, 10000 do
        local job = pop(up)
        if job then
            local ok, result = pcall(attempt, sock, job)
            sock = ok and result or nil
            if not ok then dead(job, tostring(result)) end
        elseif premature or ngx.worker.exiting() then
            return
        else
            up.idle = up.idle + 1
            up.ready:wait(1)
            up.idle = up.idle - 1
        end
    end
    if sock then sock:close() end
    assert(ngx.timer.at(0, sender, up))
end

-- Request path ---------------------------------------------------------------------------------------------
local _M = {}

function _M.init_worker()
    raw_fd, dead_fd = open_log("raw.log"), open_log("dead.log")
    batch, batch_ready = { done = semaphore.new(0) }, semaphore.new(0)
    math.randomseed(ngx.now() * 1000 + ngx.worker.pid())
    if SYNC then assert(ngx.timer.at(0, flusher)) end
    for _, up in ipairs(UPSTREAMS) do
        up.ready, up.idle = semaphore.new(0), 0
        for _ = 1, SENDERS do assert(ngx.timer.at(0, sender, up)) end
    end
end

local seen = ngx.shared.dedupe
local function fresh(key)
    local ok, err = seen:add(key, true, TTL)
    return ok or err ~= "exists"
end

local function list(value) return type(value) == "table" and value or {} end

-- Calls `found` with list name, event and its change for each event.
local function events(doc, found)
    local count = 0
    for _, entry in ipairs(doc.entry) do
        for _, change in ipairs(list(entry.changes)) do
            local value = list(change.value)
            for _, name in ipairs { "messages", "statuses" } do
                for _, event in ipairs(list(value[name])) do
                    count = count + 1
                    if found then found(name, event, entry, change) end
                end
            end
        end
    end
    return count
end

local function key_and_phone(name, event)
    if name == "messages" then return "m:" .. tostring(event.id), event.from end
    -- One id is sent, delivered and read: the status belongs to the key.
    return "s:" .. tostring(event.id) .. ":" .. tostring(event.status), event.recipient_id
end

local function dispatch(body, sig, with_first)
    local doc = cjson.decode(body)
    if type(doc) ~= "table" or type(doc.entry) ~= "table" then
        return dead({ key = sig, body = body, attempts = 0 }, "signed but not a webhook")
    end
    local count = events(doc)
    if count == 0 then
        if fresh("w:" .. sig) then push { key = "w:" .. sig, up = DEFAULT, body = body, sig = sig, attempts = 0 } end
        return
    end
    events(doc, function(name, event, entry, change)
        local key, phone = key_and_phone(name, event)
        if not fresh(key) then return end
        -- A webhook of one event goes on as it came; only others are cut, encoded and signed anew.
        if count == 1 and with_first then
            return push { key = key, up = route(phone), body = body, sig = sig, attempts = 0 }
        end
        local value = change.value
        local cut = cjson.encode { object = doc.object, entry = { { id = entry.id, changes = { { field = change.field,
            value = { messaging_product = value.messaging_product, metadata = value.metadata,
                contacts = value.contacts, [name] = { event } } } } } } }
        push { key = key, up = route(phone), body = cut, sig = signature(cut), attempts = 0 }
    end)
end

local function reply(status, words)
    ngx.status = status
    ngx.header["Content-Type"] = "text/plain"
    ngx.header["Content-Length"] = #words
    ngx.print(words)
    return ngx.exit(status)
end

function _M.handle()
    local method = ngx.req.get_method()
    if method == "GET" then
        local q = ngx.req.get_uri_args()
        local token, challenge = q["hub.verify_token"], q["hub.challenge"]
        if q["hub.mode"] == "subscribe" and type(token) == "string" and type(challenge) == "string"
            and #token == #VERIFY_TOKEN and crypto.CRYPTO_memcmp(token, VERIFY_TOKEN, #token) == 0 then
            return reply(200, challenge)
        end
        return reply(403, "forbidden\n")
    elseif method ~= "POST" then
        return reply(405, "method not allowed\n")
    end
    if depth() >= QUEUE_MAX then
        ngx.header["Retry-After"] = "1"
        return reply(503, "busy\n")
    end
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    if not body then return reply(400, "no body\n") end
    local header = ngx.var.http_x_hub_signature_256
    local by = signer(body, header)
    if not by then return reply(401, "bad signature\n") end
    local sig = header:sub(8)
    if not keep(ngx.now() * 1000 .. " " .. #body .. " " .. sig .. "\n" .. body .. "\n") then
        return reply(500, "log\n")
    end
    dispatch(body, sig, by == 1)
    ngx.header["Content-Length"] = 0
    return ngx.exit(200)
end

return _M
