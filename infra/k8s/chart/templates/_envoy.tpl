{{/* Made by `make chart` from infra/envoy/gateway.yaml: not to be edited. */}}
{{- define "steelyard.envoyPort" -}}
8080
{{- end -}}
{{- define "steelyard.envoyLimits" -}}
{"answer_s": 31, "idle_s": 30, "age_s": 75, "body_bytes_max": 16777216, "head_bytes_max": 32768, "headers_max": 100, "heap_bytes_max": 1073741824}
{{- end -}}
{{- define "steelyard.envoyFile" -}}
# The front of several gateways, for Envoy 1.40. README.md beside this file says what each protection is for and where it ends.
#
# Lines that differ from place to place end in a mark: `# listen`, `# admin`, `# discovery`. `steelyard envoy --help` prints this
# file with other values in those lines; nothing else needs to change. As it is, run it in its own folder: envoy -c gateway.yaml

node: {id: edge, cluster: steelyard}

admin:
  address:
    socket_address: {address: 127.0.0.1, port_value: 9901} # admin

# Envoy's own memory: what bodies in flight may hold of it. 1 GiB is what four gateways let in at once (admission.bytes_max).
overload_manager:
  refresh_interval: 0.25s
  resource_monitors:
  - name: envoy.resource_monitors.fixed_heap
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig
      max_heap_size_bytes: 1073741824
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
      max_active_downstream_connections: 8192
  actions:
  - name: envoy.overload_actions.shrink_heap
    triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.85}}]
  - name: envoy.overload_actions.disable_http_keepalive
    triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.9}}]
  - name: envoy.overload_actions.stop_accepting_requests
    triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.95}}]
  - name: envoy.overload_actions.stop_accepting_connections
    triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.98}}]

static_resources:
  listeners:
  - name: edge
    address:
      socket_address: {address: "0.0.0.0", port_value: 8080} # listen
    per_connection_buffer_limit_bytes: 65536
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          codec_type: HTTP1
          server_header_transformation: PASS_THROUGH
          # Nobody's word is taken for where a request comes from, and nobody sets Envoy's own headers for time-outs and retries.
          use_remote_address: true
          xff_num_trusted_hops: 0
          internal_address_config: {cidr_ranges: [{address_prefix: 255.255.255.255, prefix_len: 32}]} # nobody: unset is 10.0.0.0/8 and so on
          # A caller's x-request-id is kept, and who sends none gets one. traceparent passes as it is.
          preserve_external_request_id: true
          always_set_request_id_in_response: true
          # One meaning per path: what a router here and a router there could read differently is refused.
          normalize_path: true
          merge_slashes: true
          path_with_escaped_slashes_action: REJECT_REQUEST
          max_request_headers_kb: 32 # server.head_bytes_max
          common_http_protocol_options:
            idle_timeout: 60s
            max_connection_duration: 60s # so that one Envoy can go and another takes a share: answers then say `Connection: close`,
            max_headers_count: 100 # server.headers_max
            headers_with_underscores_action: REJECT_REQUEST
          drain_timeout: 15s # and who asks nothing for this long after is left
          # A slow sender holds a buffer here and nothing of a gateway: it gets a request when that is whole.
          request_headers_timeout: 5s
          request_timeout: 15s
          stream_idle_timeout: 35s
          delayed_close_timeout: 1s
          http_filters:
          - name: envoy.filters.http.buffer
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
              max_request_bytes: 16777216 # server.body_bytes_max
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              suppress_envoy_headers: true
          # Envoy's own refusals look like the gateway's: {"error": "a sentence"}, and Retry-After where trying again makes sense.
          local_reply_config:
            mappers:
            - filter: {response_flag_filter: {flags: [UH]}}
              headers_to_add: &again [{header: {key: retry-after, value: "1"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
              body: {inline_string: "no gateway is ready; try again"}
            - filter: {response_flag_filter: {flags: [UO, OM]}}
              headers_to_add: *again
              body: {inline_string: "too many requests are in flight; try again"}
            - filter: {response_flag_filter: {flags: [UF, UC, LR, UR]}}
              headers_to_add: *again
              body: {inline_string: "a gateway went away, and no other took the request; try again"}
            - filter: {response_flag_filter: {flags: [UT]}}
              headers_to_add: *again
              body: {inline_string: "no gateway answered in time; try again"}
            - filter: {status_code_filter: {comparison: {op: EQ, value: {default_value: 503, runtime_key: unflagged}}}} # of the overload manager
              headers_to_add: *again
              body: {inline_string: "too many requests are in flight; try again"}
            body_format: {json_format: {error: "%LOCAL_REPLY_BODY%"}}
          # Failures only, without query, headers or bodies: no line carries a payload or a key.
          access_log:
          - name: envoy.access_loggers.stderr
            filter: {status_code_filter: {comparison: {op: GE, value: {default_value: 500, runtime_key: access_log_from}}}}
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog
              log_format:
                json_format:
                  time: "%START_TIME%"
                  status: "%RESPONSE_CODE%"
                  flags: "%RESPONSE_FLAGS%"
                  method: "%REQ(:METHOD)%"
                  path: "%PATH(NQ):200%"
                  ms: "%DURATION%"
                  attempts: "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"
                  gateway: "%UPSTREAM_HOST%"
                  x_request_id: "%REQ(X-REQUEST-ID)%"
                  steelyard_request_id: "%RESP(STEELYARD-REQUEST-ID)%"
          route_config:
            name: doors
            virtual_hosts:
            - name: gateways
              domains: ["*"]
              request_body_buffer_limit: 16777216 # a body larger than this buffer could not be sent again
              routes:
              # Metrics are one container's: scrape each gateway, not a random one.
              - match: {path_separated_prefix: /metrics}
                direct_response:
                  status: 404
                  body: {inline_string: "metrics are each gateway's own; scrape them there"}
              # Loading and unloading may take as long as a load may (120 s), and are sent again only where nobody got them.
              - match: {prefix: /v2/repository/models/}
                route:
                  cluster: by_model
                  timeout: 125s
                  idle_timeout: 130s
                  hash_policy: &by_path
                  - header:
                      header_name: ":path"
                      regex_rewrite:
                        pattern: {regex: "^/(v1/predict|v2/models|v1/models|v2/repository/models)/([^/:?]+).*$"}
                        substitution: '\2'
                  retry_policy: &unsent
                    retry_on: connect-failure
                    num_retries: 1
                    retry_host_predicate: &another
                    - name: envoy.retry_host_predicates.previous_hosts
                      typed_config:
                        "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
                    host_selection_retry_max_attempts: 20
                    retry_back_off: &soon {base_interval: 0.01s, max_interval: 0.1s}
              # Predictions and questions about a model: they change nothing, so sending one again is safe. The second gateway sees
              # it only when the first cannot have answered, or says itself that it did not let it in: never after a 429 of a
              # caller's own limit, never because an answer was slow.
              - match: {safe_regex: {regex: "/(v1/predict|v2/models|v1/models)/.+"}}
                route:
                  cluster: by_model
                  timeout: 31s # timeout_s and one: the gateway's own sentence comes first
                  hash_policy: *by_path
                  retry_policy: &safe
                    retry_on: connect-failure,refused-stream,reset,retriable-headers
                    retriable_headers: [{name: steelyard-not-admitted, present_match: true}]
                    num_retries: 1
                    retry_host_predicate: *another
                    host_selection_retry_max_attempts: 20
                    retry_back_off: *soon
              # SageMaker's door names the model in a header. Who names none is answered by the default model, which has one home too.
              - match: {path: /invocations}
                route:
                  cluster: by_model
                  timeout: 31s
                  hash_policy:
                  - header: {header_name: x-amzn-sagemaker-target-model}
                    terminal: true
                  - header: {header_name: ":path"}
                  retry_policy: *safe
              # Everything else is any gateway's.
              - match: {prefix: /, headers: [{name: ":method", string_match: {safe_regex: {regex: "GET|HEAD"}}}]}
                route: {cluster: any, timeout: 31s, retry_policy: *safe}
              - match: {prefix: /}
                route: {cluster: any, timeout: 31s, retry_policy: *unsent}

  clusters:
  # The gateways by model: each model has one home, so that N gateways hold N times as many models and not the same ones.
  - name: by_model
    lb_policy: MAGLEV
    maglev_lb_config: {table_size: 65537}
    common_lb_config:
      healthy_panic_threshold: {value: 0} # a gateway that is not ready says so on purpose: it drains
      update_merge_window: 0s # and is believed at once; the default waits a second for more of the kind
      # A hot model overflows to others, at the price of loading it there: README.md says when another bound is better.
      consistent_hashing_lb_config: {hash_balance_factor: 125}
    type: STRICT_DNS # discovery
    load_assignment: {cluster_name: gateways, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: {{ include "steelyard.gateways" . | quote }}, port_value: {{ .Values.port }}}}}}]}]} # discovery
    ignore_health_on_host_removal: true
    connect_timeout: 1s
    per_connection_buffer_limit_bytes: 65536
    health_checks: &readiness
    - timeout: 2s # a busy gateway is slow, not dead; one that is dead is found by its connections
      interval: 1s
      no_traffic_interval: 1s
      unhealthy_threshold: 3
      healthy_threshold: 1
      http_health_check: {path: /v2/health/ready}
    # What a caller can bring about (503 for a broken model or a short deadline, 429) ejects nobody: only what is the gateway's own,
    # failed connections and 500.
    outlier_detection: &outliers
      interval: 1s
      base_ejection_time: 3s
      max_ejection_time: 30s
      max_ejection_percent: 50
      split_external_local_origin_errors: true
      consecutive_local_origin_failure: 3
      enforcing_consecutive_local_origin_failure: 100
      consecutive_5xx: 5
      enforcing_consecutive_5xx: 100
      enforcing_consecutive_gateway_failure: 0
      enforcing_success_rate: 0
      enforcing_local_origin_success_rate: 0
    # For four gateways. Each lets in 1,024 requests (admission.requests_max), and an HTTP/1.1 request is a connection.
    circuit_breakers:
      thresholds:
      - max_connections: 4096
        max_requests: 4096
        max_pending_requests: 1024
        track_remaining: true
        retry_budget: {budget_percent: {value: 20}, min_retry_concurrency: 10}
      per_host_thresholds:
      - max_connections: 1024
    typed_extension_protocol_options: &http
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http_protocol_options: {}}
        common_http_protocol_options: {idle_timeout: 30s} # less than server.keep_alive_s, so that the gateway does not close first
        outlier_detection:
          error_matcher: {http_response_headers_match: {headers: [{name: ":status", string_match: {exact: "500"}}]}}

  # The same gateways for what is no model's. Costs and documentation have bounds of their own: they take no prediction's place.
  - name: any
    lb_policy: ROUND_ROBIN
    common_lb_config: {healthy_panic_threshold: {value: 0}, update_merge_window: 0s}
    type: STRICT_DNS # discovery
    load_assignment: {cluster_name: gateways, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: {{ include "steelyard.gateways" . | quote }}, port_value: {{ .Values.port }}}}}}]}]} # discovery
    ignore_health_on_host_removal: true
    connect_timeout: 1s
    per_connection_buffer_limit_bytes: 65536
    health_checks: *readiness
    outlier_detection: *outliers
    circuit_breakers:
      thresholds:
      - max_connections: 256
        max_requests: 256
        max_pending_requests: 256
        track_remaining: true
        retry_budget: {budget_percent: {value: 20}, min_retry_concurrency: 10}
    typed_extension_protocol_options: *http
{{- end -}}
