package main

import (
	"os"
	"strings"

	"github.com/hashicorp/consul/api"
)

// as gives a client under this token.
func as(token string) *api.Client {
	config := api.DefaultConfig()
	config.Token = token
	client, err := api.NewClient(config)
	done(err, "a client with a token")
	return client
}

// Tokens, policies and roles, on a server whose default is to deny.
func tokens(client *api.Client) {
	found, _, err := client.Catalog().Services(nil)
	done(err, "catalog services without a token")
	equal(len(found), 0, "shows nothing")
	refused(client.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "web"}), 403, "Permission denied", "register without a token")
	first, _, err := client.ACL().Bootstrap()
	if !done(err, "bootstrap") {
		return
	}
	_, _, err = client.ACL().Bootstrap()
	refused(err, 403, "ACL bootstrap no longer allowed", "bootstrap again")
	manager := as(first.SecretID)
	acl := manager.ACL()

	policy, _, err := acl.PolicyCreate(&api.ACLPolicy{Name: "web", Description: "writes web",
		Rules: `service "web" { policy = "write" } service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`}, nil)
	if !done(err, "policy create") {
		return
	}
	policy.Description = "writes web alone"
	policy, _, err = acl.PolicyUpdate(policy, nil)
	done(err, "policy update")
	read, _, err := acl.PolicyReadByName("web", nil)
	done(err, "policy read by name")
	equal(read.ID == policy.ID && read.Description == "writes web alone", true, "is the one")
	policies, _, err := acl.PolicyList(nil)
	done(err, "policy list")
	check(len(policies) >= 2, "has it and global-management", policies)
	role, _, err := acl.RoleCreate(&api.ACLRole{Name: "webs", Policies: []*api.ACLRolePolicyLink{{Name: "web"}}}, nil)
	done(err, "role create")
	byName, _, err := acl.RoleReadByName("webs", nil)
	done(err, "role read by name")
	equal(byName != nil && byName.ID == role.ID, true, "is the one")
	roles, _, err := acl.RoleList(nil)
	done(err, "role list")
	equal(len(roles), 1, "has the one")

	token, _, err := acl.TokenCreate(&api.ACLToken{Description: "for web", Roles: []*api.ACLTokenRoleLink{{Name: "webs"}}}, nil)
	if !done(err, "token create") {
		return
	}
	web := as(token.SecretID)
	done(web.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "web", Port: 1}), "register web with it")
	refused(web.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "db", Port: 1}), 403, `lacks permission 'service:write' on "db"`, "register db with it")
	found, _, err = web.Catalog().Services(nil)
	done(err, "catalog services with it")
	check(found["web"] != nil, "shows web", found)
	own, _, err := web.ACL().TokenReadSelf(nil)
	done(err, "token read self")
	equal(own.AccessorID, token.AccessorID, "is itself")
	clone, _, err := acl.TokenClone(token.AccessorID, "another", nil)
	done(err, "token clone")
	equal(clone.SecretID != token.SecretID && clone.Description == "another", true, "has its own secret")
	clone.Description = "changed"
	_, _, err = acl.TokenUpdate(clone, nil)
	done(err, "token update")
	again, _, err := acl.TokenRead(clone.AccessorID, nil)
	done(err, "token read")
	equal(again.Description, "changed", "is changed")
	list, _, err := acl.TokenList(nil)
	done(err, "token list")
	check(len(list) >= 3, "has them all", list)

	identity, _, err := acl.TokenCreate(&api.ACLToken{ServiceIdentities: []*api.ACLServiceIdentity{{ServiceName: "api"}}}, nil)
	done(err, "token create with a service identity")
	done(as(identity.SecretID).Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "api", Port: 1}), "register api with it")
	for _, one := range []string{clone.AccessorID, identity.AccessorID} {
		_, err = acl.TokenDelete(one, nil)
		done(err, "token delete")
	}
	refused(as(clone.SecretID).Agent().ServiceDeregister("web"), 403, "ACL not found", "what a deleted token is told")
	_, err = manager.Agent().UpdateDNSToken(token.SecretID, nil)
	done(err, "set the agent's DNS token")
	_, err = acl.RoleDelete(role.ID, nil)
	done(err, "role delete")
	_, err = acl.PolicyDelete(policy.ID, nil)
	done(err, "policy delete")
	refused(web.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "web", Port: 2}), 403, "Permission denied", "register with a token whose role is gone")
}

// A workload's own token (a JWT, in WORKLOAD_JWT; the key that checks it in WORKLOAD_KEY) becomes a scoped one.
func login(client *api.Client) {
	first, _, err := client.ACL().Bootstrap()
	if !done(err, "bootstrap") {
		return
	}
	acl := as(first.SecretID).ACL()
	_, _, err = acl.AuthMethodCreate(&api.ACLAuthMethod{Name: "workloads", Type: "jwt", Config: map[string]any{
		"BoundAudiences": []string{"rollcall"}, "BoundIssuer": "tests", "JWTSupportedAlgs": []string{"ES256"},
		"JWTValidationPubKeys": []string{os.Getenv("WORKLOAD_KEY")}, "ClaimMappings": map[string]string{"service": "service"},
	}}, nil)
	if !done(err, "auth method create") {
		return
	}
	method, _, err := acl.AuthMethodRead("workloads", nil)
	done(err, "auth method read")
	equal(method != nil && method.Type == "jwt", true, "is of type jwt")
	rule, _, err := acl.BindingRuleCreate(&api.ACLBindingRule{AuthMethod: "workloads", Selector: `value.service != ""`,
		BindType: api.BindingRuleBindTypeService, BindName: "${value.service}"}, nil)
	done(err, "binding rule create")
	rules, _, err := acl.BindingRuleList("workloads", nil)
	done(err, "binding rule list")
	equal(len(rules) == 1 && rules[0].ID == rule.ID, true, "has the one")

	token, _, err := client.ACL().Login(&api.ACLLoginParams{AuthMethod: "workloads", BearerToken: os.Getenv("WORKLOAD_JWT"),
		Meta: map[string]string{"pod": "web-7"}}, nil)
	if !done(err, "login") {
		return
	}
	scoped := as(token.SecretID)
	done(scoped.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "web", Port: 1}), "register the JWT's service")
	refused(scoped.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "db", Port: 1}), 403, "Permission denied", "register another")
	parts := strings.Split(os.Getenv("WORKLOAD_JWT"), ".")
	for what, forged := range map[string]string{
		"another signature": parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])),
		"no signature":      "eyJhbGciOiJub25lIn0." + parts[1] + ".",
	} {
		_, _, err = client.ACL().Login(&api.ACLLoginParams{AuthMethod: "workloads", BearerToken: forged}, nil)
		refused(err, 403, "", "login with a JWT that has "+what)
	}
	_, err = scoped.ACL().Logout(nil)
	done(err, "logout")
	refused(scoped.Agent().ServiceDeregister("web"), 403, "ACL not found", "what the token is told after that")
	_, err = acl.BindingRuleDelete(rule.ID, nil)
	done(err, "binding rule delete")
	_, err = acl.AuthMethodDelete("workloads", nil)
	done(err, "auth method delete")
}
