# haproxy's configuration, out of the servers in the one that kind writes for Envoy (cds.yaml). They are asked as Envoy would ask them.
BEGIN {
  print "global\n  maxconn 4000"
  print "defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 1h\n  timeout server 1h\n  timeout check 3s"
  print "listen control-plane\n  bind *:6443\n  balance roundrobin\n  option httpchk GET /healthz"
  print "  default-server check check-ssl verify none inter 2s fall 2 rise 1 init-addr libc,none"
}
$1 == "address:" && NF == 2 { host = $2 }
$1 == "port_value:" && host { print "  server " host " " host ":" $2; host = "" }
